/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MADE by tools/gates from shdict.h: change that, and make this again.
 *
 * The gates: the public functions as they are exported. While no segment is
 * protected a gate is one look at a word, and a jump. Those that can make the
 * process's first protected mapping are gone through in any case.
 */
#include "shm/segment/protect.h"
#include "shm/base/atomic.h"
#include "shm/shdict.h"

#define THROUGH(name, parameters, arguments)                                  \
    extern __typeof__(name) inside_##name;                                    \
    static __attribute__((noinline, cold)) int through_##name parameters     \
    {                                                                         \
        bool entered = protect_enter();                                       \
        int rc = inside_##name arguments;                                     \
                                                                              \
        protect_leave(entered);                                               \
        return rc;                                                            \
    }

#define GATE(name, parameters, arguments)                                     \
    THROUGH(name, parameters, arguments)                                      \
    int name parameters                                                       \
    {                                                                         \
        if (__builtin_expect(atomic_load32(&protect_on) != 0, 0))             \
            return through_##name arguments;                                  \
        return inside_##name arguments;                                       \
    }

#define ALWAYS(name, parameters, arguments)                                   \
    THROUGH(name, parameters, arguments)                                      \
    int name parameters                                                       \
    {                                                                         \
        return through_##name arguments;                                      \
    }

/* clang-format off */
ALWAYS(shd_segment_create, (const char *name,
       const struct shd_segment_options *o, shd_segment **out), (name, o, out))
ALWAYS(shd_segment_attach, (const char *name,
       const struct shd_segment_options *o, shd_segment **out), (name, o, out))
ALWAYS(shd_segment_open, (const char *name,
       const struct shd_segment_options *o, shd_segment **out), (name, o, out))
GATE(shd_segment_close, (shd_segment *segment), (segment))
ALWAYS(shd_segment_destroy, (const char *name), (name))
GATE(shd_segment_fd, (shd_segment *segment), (segment))
GATE(shd_segment_info, (shd_segment *segment, struct shd_segment_info *info),
     (segment, info))
GATE(shd_segment_check, (shd_segment *segment, char *report, size_t size),
     (segment, report, size))
GATE(shd_check_progress, (shd_segment *segment, uint64_t *done,
     uint64_t *total), (segment, done, total))
GATE(shd_segment_repair, (shd_segment *segment, struct shd_repair *done,
     char *report, size_t size), (segment, done, report, size))
GATE(shd_save_open, (shd_segment *segment, const char *path,
     const struct shd_save_options *o, shd_save **out), (segment, path, o,
     out))
GATE(shd_save_step, (shd_save *save), (save))
GATE(shd_save_info, (shd_save *save, struct shd_keep_info *info), (save, info))
GATE(shd_save_close, (shd_save *save), (save))
GATE(shd_segment_save, (shd_segment *segment, const char *path,
     const struct shd_save_options *o, struct shd_keep_info *info), (segment,
     path, o, info))
ALWAYS(shd_restore_open, (const char *path, const char *name,
       const struct shd_restore_options *o, shd_restore **out), (path, name, o,
       out))
GATE(shd_restore_step, (shd_restore *restore), (restore))
GATE(shd_restore_info, (shd_restore *restore, struct shd_keep_info *info),
     (restore, info))
GATE(shd_restore_close, (shd_restore *restore, shd_segment **segment),
     (restore, segment))
ALWAYS(shd_segment_restore, (const char *path, const char *name,
       const struct shd_restore_options *o, struct shd_keep_info *info,
       shd_segment **segment), (path, name, o, info, segment))
GATE(shd_object_destroy, (shd_segment *segment, const char *name), (segment,
     name))
GATE(shd_object_info, (shd_segment *segment, uint32_t index,
     struct shd_object_info *info), (segment, index, info))
GATE(shd_layout_get, (shd_segment *segment, shd_layout **out), (segment, out))
GATE(shd_worker_join, (shd_segment *segment, uint64_t *incarnation), (segment,
     incarnation))
GATE(shd_worker_info, (shd_segment *segment, uint32_t index,
     struct shd_worker_info *info), (segment, index, info))
GATE(shd_worker_is_alive, (shd_segment *segment, uint64_t incarnation),
     (segment, incarnation))
GATE(shd_reap, (shd_segment *segment, uint32_t *reaped), (segment, reaped))
GATE(shd_worker_beat, (shd_segment *segment), (segment))
GATE(shd_worker_set_phase, (shd_segment *segment, uint64_t incarnation,
     uint32_t phase), (segment, incarnation, phase))
GATE(shd_worker_signal, (shd_segment *segment, uint64_t incarnation,
     int signal), (segment, incarnation, signal))
GATE(shd_worker_hold, (shd_segment *segment, uint64_t incarnation,
     uint32_t index, struct shd_hold *hold), (segment, incarnation, index,
     hold))
GATE(shd_generation_next, (shd_segment *segment, uint32_t *generation),
     (segment, generation))
GATE(shd_generation_drain, (shd_segment *segment, uint32_t generation,
     uint32_t *marked), (segment, generation, marked))
GATE(shd_worker_fd, (shd_segment *segment), (segment))
GATE(shd_worker_fd_clear, (shd_segment *segment), (segment))
GATE(shd_worker_leave, (shd_segment *segment), (segment))
GATE(shd_watch_open, (shd_segment *segment, const struct shd_watch_options *o,
     shd_watch **out), (segment, o, out))
GATE(shd_watch_close, (shd_watch *watch), (watch))
GATE(shd_watch_fd, (shd_watch *watch), (watch))
GATE(shd_watch_next, (shd_watch *watch, int64_t timeout_ms,
     struct shd_watch_event *event), (watch, timeout_ms, event))
GATE(shd_dict_open, (shd_segment *segment, const char *name,
     const struct shd_dict_options *o, shd_dict **out), (segment, name, o,
     out))
GATE(shd_dict_close, (shd_dict *dict), (dict))
GATE(shd_dict_destroy, (shd_segment *segment, const char *name), (segment,
     name))
GATE(shd_dict_resize, (shd_dict *dict, uint64_t capacity_bytes), (dict,
     capacity_bytes))
GATE(shd_dict_info, (shd_dict *dict, struct shd_dict_info *info), (dict, info))
GATE(shd_shard_info, (shd_dict *dict, uint32_t index,
     struct shd_shard_info *info), (dict, index, info))
GATE(shd_dict_account, (shd_dict *dict, struct shd_dict_account *account),
     (dict, account))
GATE(shd_dict_pages, (shd_dict *dict, uint64_t first, struct shd_page *pages,
     uint32_t max, uint32_t *count), (dict, first, pages, max, count))
GATE(shd_get, (shd_dict *dict, const void *key, size_t key_len, void *buf,
     size_t size, struct shd_value *v), (dict, key, key_len, buf, size, v))
GATE(shd_get_stale, (shd_dict *dict, const void *key, size_t key_len,
     void *buf, size_t size, struct shd_value *v), (dict, key, key_len, buf,
     size, v))
GATE(shd_store, (shd_dict *dict, uint32_t op, const void *key, size_t key_len,
     uint32_t type, const void *value, size_t len, double number,
     int64_t ttl_ms, int32_t flags, uint32_t *forcible), (dict, op, key,
     key_len, type, value, len, number, ttl_ms, flags, forcible))
GATE(shd_set, (shd_dict *dict, const void *key, size_t key_len,
     const void *value, size_t len, int64_t ttl_ms), (dict, key, key_len,
     value, len, ttl_ms))
GATE(shd_delete, (shd_dict *dict, const void *key, size_t key_len), (dict, key,
     key_len))
GATE(shd_incr, (shd_dict *dict, const void *key, size_t key_len, double by,
     int has_init, double init, int64_t init_ttl_ms, double *result,
     uint32_t *forcible), (dict, key, key_len, by, has_init, init, init_ttl_ms,
     result, forcible))
GATE(shd_take, (shd_dict *dict, const void *key, size_t key_len, void *buf,
     size_t size, struct shd_value *v), (dict, key, key_len, buf, size, v))
GATE(shd_append, (shd_dict *dict, int left, const void *key, size_t key_len,
     const void *value, size_t len, const void *init, size_t init_len,
     int64_t init_ttl_ms, uint64_t *length, uint32_t *forcible), (dict, left,
     key, key_len, value, len, init, init_len, init_ttl_ms, length, forcible))
GATE(shd_ttl, (shd_dict *dict, const void *key, size_t key_len,
     int64_t *ttl_ms), (dict, key, key_len, ttl_ms))
GATE(shd_expire, (shd_dict *dict, const void *key, size_t key_len,
     int64_t ttl_ms), (dict, key, key_len, ttl_ms))
GATE(shd_touch, (shd_dict *dict, const void *key, size_t key_len,
     int64_t ttl_ms), (dict, key, key_len, ttl_ms))
GATE(shd_flush_all, (shd_dict *dict), (dict))
GATE(shd_flush_expired, (shd_dict *dict, uint64_t max, uint64_t *freed), (dict,
     max, freed))
GATE(shd_capacity, (shd_dict *dict, uint64_t *bytes), (dict, bytes))
GATE(shd_free_space, (shd_dict *dict, uint64_t *bytes), (dict, bytes))
GATE(shd_cas, (shd_dict *dict, const void *key, size_t key_len,
     uint32_t old_type, const void *old, size_t old_len, double old_number,
     uint32_t type, const void *value, size_t len, double number,
     int64_t ttl_ms, int32_t flags, uint32_t *forcible), (dict, key, key_len,
     old_type, old, old_len, old_number, type, value, len, number, ttl_ms,
     flags, forcible))
GATE(shd_get_versioned, (shd_dict *dict, const void *key, size_t key_len,
     void *buf, size_t size, struct shd_value *v, uint64_t *version), (dict,
     key, key_len, buf, size, v, version))
GATE(shd_store_versioned, (shd_dict *dict, const void *key, size_t key_len,
     uint32_t type, const void *value, size_t len, double number,
     int64_t ttl_ms, int32_t flags, uint64_t *version, uint32_t *forcible),
     (dict, key, key_len, type, value, len, number, ttl_ms, flags, version,
     forcible))
GATE(shd_get_multi, (shd_dict *dict, uint32_t count, const void *const *keys,
     const size_t *key_lens, void *buf, size_t size, struct shd_value *values,
     size_t *at, int32_t *codes), (dict, count, keys, key_lens, buf, size,
     values, at, codes))
GATE(shd_set_multi, (shd_dict *dict, uint32_t op, uint32_t count,
     const void *const *keys, const size_t *key_lens,
     const struct shd_value *values, const void *const *bytes, int32_t *codes,
     uint32_t *forcible), (dict, op, count, keys, key_lens, values, bytes,
     codes, forcible))
GATE(shd_push, (shd_dict *dict, int left, const void *key, size_t key_len,
     uint32_t type, const void *value, size_t len, double number,
     uint64_t *length), (dict, left, key, key_len, type, value, len, number,
     length))
GATE(shd_push_expire, (shd_dict *dict, int left, const void *key,
     size_t key_len, uint32_t type, const void *value, size_t len,
     double number, int64_t ttl_ms, uint64_t *length), (dict, left, key,
     key_len, type, value, len, number, ttl_ms, length))
GATE(shd_pop, (shd_dict *dict, int left, const void *key, size_t key_len,
     void *buf, size_t size, struct shd_value *v), (dict, left, key, key_len,
     buf, size, v))
GATE(shd_llen, (shd_dict *dict, const void *key, size_t key_len,
     uint64_t *length), (dict, key, key_len, length))
GATE(shd_lmove, (shd_dict *dict, int from_left, const void *from,
     size_t from_len, int to_left, const void *to, size_t to_len, void *buf,
     size_t size, struct shd_value *v), (dict, from_left, from, from_len,
     to_left, to, to_len, buf, size, v))
GATE(shd_ltake, (shd_dict *dict, int left, const void *key, size_t key_len,
     void *buf, size_t size, struct shd_value *v, uint64_t *lease), (dict,
     left, key, key_len, buf, size, v, lease))
GATE(shd_lack, (shd_dict *dict, uint64_t lease), (dict, lease))
GATE(shd_lnack, (shd_dict *dict, uint64_t lease), (dict, lease))
GATE(shd_lease_next, (shd_dict *dict, struct shd_lease_info *info,
     void *key_buf, size_t key_size, size_t *key_len), (dict, info, key_buf,
     key_size, key_len))
GATE(shd_scan, (shd_dict *dict, const void *after, size_t after_len,
     uint32_t flags, void *key_buf, size_t key_size, size_t *key_len,
     void *buf, size_t size, struct shd_value *v), (dict, after, after_len,
     flags, key_buf, key_size, key_len, buf, size, v))
GATE(shd_list_read, (shd_dict *dict, const void *key, size_t key_len,
     uint32_t flags, uint64_t from, uint32_t max, void *buf, size_t size,
     struct shd_value *values, size_t *at, uint32_t *count, uint64_t *length),
     (dict, key, key_len, flags, from, max, buf, size, values, at, count,
     length))
GATE(shd_entry_info, (shd_dict *dict, const void *key, size_t key_len,
     struct shd_entry_info *info), (dict, key, key_len, info))
GATE(shd_keys_get, (shd_dict *dict, uint64_t max, shd_keys **out), (dict, max,
     out))
GATE(shd_queue_open, (shd_segment *segment, const char *name,
     const struct shd_queue_options *o, shd_queue **out), (segment, name, o,
     out))
GATE(shd_queue_close, (shd_queue *queue), (queue))
GATE(shd_queue_destroy, (shd_segment *segment, const char *name), (segment,
     name))
GATE(shd_queue_info, (shd_queue *queue, struct shd_queue_info *info), (queue,
     info))
GATE(shd_queue_push, (shd_queue *queue, const void *data, size_t len,
     int64_t delay_ms, int64_t wait_ms, uint64_t *id), (queue, data, len,
     delay_ms, wait_ms, id))
GATE(shd_queue_push_many, (shd_queue *queue, uint32_t count,
     const void *const *data, const size_t *len, int64_t delay_ms,
     int64_t wait_ms, uint64_t *ids, uint32_t *pushed), (queue, count, data,
     len, delay_ms, wait_ms, ids, pushed))
GATE(shd_queue_reserve, (shd_queue *queue, size_t len, int64_t wait_ms,
     uint64_t *lease), (queue, len, wait_ms, lease))
GATE(shd_queue_write, (shd_queue *queue, uint64_t lease, uint64_t at,
     const void *data, size_t len), (queue, lease, at, data, len))
GATE(shd_queue_commit, (shd_queue *queue, uint64_t lease, int64_t delay_ms,
     uint64_t *id), (queue, lease, delay_ms, id))
GATE(shd_queue_cancel, (shd_queue *queue, uint64_t lease), (queue, lease))
GATE(shd_queue_pop, (shd_queue *queue, void *buf, size_t size, int64_t wait_ms,
     struct shd_message *m), (queue, buf, size, wait_ms, m))
GATE(shd_queue_take, (shd_queue *queue, void *buf, size_t size,
     int64_t wait_ms, struct shd_message *m), (queue, buf, size, wait_ms, m))
GATE(shd_queue_pop_many, (shd_queue *queue, uint32_t max, void *buf,
     size_t size, int64_t wait_ms, struct shd_message *m, size_t *at,
     uint32_t *taken), (queue, max, buf, size, wait_ms, m, at, taken))
GATE(shd_queue_take_many, (shd_queue *queue, uint32_t max, void *buf,
     size_t size, int64_t wait_ms, struct shd_message *m, size_t *at,
     uint32_t *taken), (queue, max, buf, size, wait_ms, m, at, taken))
GATE(shd_queue_ack, (shd_queue *queue, uint64_t lease), (queue, lease))
GATE(shd_queue_nack, (shd_queue *queue, uint64_t lease, int64_t delay_ms),
     (queue, lease, delay_ms))
GATE(shd_queue_extend, (shd_queue *queue, uint64_t lease, int64_t lease_ms),
     (queue, lease, lease_ms))
GATE(shd_queue_ack_many, (shd_queue *queue, uint32_t count,
     const uint64_t *leases, int32_t *codes), (queue, count, leases, codes))
GATE(shd_queue_peek, (shd_queue *queue, uint32_t which, uint64_t index,
     void *buf, size_t size, struct shd_message *m), (queue, which, index, buf,
     size, m))
GATE(shd_queue_drain, (shd_queue *queue, uint32_t which, uint64_t max,
     uint64_t *n), (queue, which, max, n))
GATE(shd_queue_requeue, (shd_queue *queue, uint64_t max, uint64_t *n), (queue,
     max, n))
GATE(shd_queue_arm, (shd_queue *queue, int room, int64_t *again_ms), (queue,
     room, again_ms))
GATE(shd_topic_open, (shd_segment *segment, const char *name,
     const struct shd_topic_options *o, shd_topic **out), (segment, name, o,
     out))
GATE(shd_topic_close, (shd_topic *topic), (topic))
GATE(shd_topic_publish, (shd_topic *topic, const void *data, size_t len,
     int64_t wait_ms, uint64_t *seq), (topic, data, len, wait_ms, seq))
GATE(shd_topic_publish_many, (shd_topic *topic, uint32_t count,
     const void *const *data, const size_t *len, int64_t wait_ms,
     uint64_t *seqs, uint32_t *published), (topic, count, data, len, wait_ms,
     seqs, published))
GATE(shd_topic_info, (shd_topic *topic, struct shd_topic_info *info), (topic,
     info))
GATE(shd_topic_cursor, (shd_topic *topic, uint32_t index,
     struct shd_cursor_info *info), (topic, index, info))
GATE(shd_topic_subscribe, (shd_topic *topic, const char *name, uint32_t from,
     shd_subscription **out), (topic, name, from, out))
GATE(shd_subscription_close, (shd_subscription *subscription), (subscription))
GATE(shd_subscription_next, (shd_subscription *subscription, void *buf,
     size_t size, int64_t wait_ms, struct shd_event *events, uint32_t max,
     uint32_t *count, uint64_t *missed), (subscription, buf, size, wait_ms,
     events, max, count, missed))
GATE(shd_subscription_acknowledge, (shd_subscription *s), (s))
GATE(shd_subscription_arm, (shd_subscription *subscription), (subscription))
GATE(shd_topic_forget, (shd_topic *topic, const char *name), (topic, name))
GATE(shd_mailbox_open, (shd_segment *segment, const char *name,
     const struct shd_mailbox_options *o, shd_mailbox **out), (segment, name,
     o, out))
GATE(shd_mailbox_close, (shd_mailbox *mailbox), (mailbox))
GATE(shd_mailbox_listen, (shd_mailbox *mailbox), (mailbox))
GATE(shd_mailbox_leave, (shd_mailbox *mailbox), (mailbox))
GATE(shd_mailbox_find, (shd_mailbox *mailbox, int32_t worker_id,
     uint64_t *incarnation), (mailbox, worker_id, incarnation))
GATE(shd_mailbox_post, (shd_mailbox *mailbox, uint64_t to, const void *data,
     size_t len, int64_t wait_ms, uint64_t *id), (mailbox, to, data, len,
     wait_ms, id))
GATE(shd_mailbox_post_all, (shd_mailbox *mailbox, const void *data, size_t len,
     int64_t wait_ms, uint32_t *reached), (mailbox, data, len, wait_ms,
     reached))
GATE(shd_mailbox_receive, (shd_mailbox *mailbox, void *buf, size_t size,
     int64_t wait_ms, struct shd_mail *m), (mailbox, buf, size, wait_ms, m))
GATE(shd_mailbox_answer, (shd_mailbox *mailbox, uint64_t request,
     const void *data, size_t len, int64_t wait_ms), (mailbox, request, data,
     len, wait_ms))
GATE(shd_mailbox_decline, (shd_mailbox *mailbox, uint64_t request), (mailbox,
     request))
GATE(shd_mailbox_request, (shd_mailbox *mailbox, uint64_t to, const void *data,
     size_t len, size_t answer_bytes, int64_t wait_ms, uint64_t *request),
     (mailbox, to, data, len, answer_bytes, wait_ms, request))
GATE(shd_mailbox_await, (shd_mailbox *mailbox, uint64_t request, void *buf,
     size_t size, int64_t wait_ms, struct shd_mail *m), (mailbox, request, buf,
     size, wait_ms, m))
GATE(shd_mailbox_cancel, (shd_mailbox *mailbox, uint64_t request), (mailbox,
     request))
GATE(shd_mailbox_call, (shd_mailbox *mailbox, uint64_t to, const void *data,
     size_t len, void *buf, size_t size, int64_t wait_ms, struct shd_mail *m),
     (mailbox, to, data, len, buf, size, wait_ms, m))
GATE(shd_mailbox_arm, (shd_mailbox *mailbox), (mailbox))
GATE(shd_mailbox_arm_room, (shd_mailbox *mailbox, uint64_t to, size_t len),
     (mailbox, to, len))
GATE(shd_mailbox_info, (shd_mailbox *mailbox, struct shd_mailbox_info *info),
     (mailbox, info))
GATE(shd_mailbox_box, (shd_mailbox *mailbox, uint32_t index,
     struct shd_box_info *info), (mailbox, index, info))
GATE(shd_mailbox_peek, (shd_mailbox *mailbox, uint32_t index, uint64_t at,
     void *buf, size_t size, struct shd_mail *m), (mailbox, index, at, buf,
     size, m))
GATE(shd_lock_open, (shd_segment *segment, const char *name, uint32_t kind,
     const struct shd_lock_options *o, shd_lock **out), (segment, name, kind,
     o, out))
GATE(shd_lock_close, (shd_lock *lock), (lock))
GATE(shd_lock_acquire, (shd_lock *lock, int64_t wait_ms, int64_t ttl_ms,
     struct shd_grant *grant), (lock, wait_ms, ttl_ms, grant))
GATE(shd_lock_release, (shd_lock *lock, uint64_t token), (lock, token))
GATE(shd_lock_check, (shd_lock *lock, uint64_t token, int64_t *ttl_ms), (lock,
     token, ttl_ms))
GATE(shd_lock_extend, (shd_lock *lock, uint64_t token, int64_t ttl_ms), (lock,
     token, ttl_ms))
GATE(shd_lock_request, (shd_lock *lock, int64_t ttl_ms,
     struct shd_grant *grant, uint64_t *ticket), (lock, ttl_ms, grant, ticket))
GATE(shd_lock_poll, (shd_lock *lock, uint64_t ticket, struct shd_grant *grant),
     (lock, ticket, grant))
GATE(shd_lock_cancel, (shd_lock *lock, uint64_t ticket,
     struct shd_grant *grant), (lock, ticket, grant))
GATE(shd_lock_info, (shd_lock *lock, struct shd_lock_info *info), (lock, info))
GATE(shd_lock_holder, (shd_lock *lock, uint32_t index,
     struct shd_holder *holder), (lock, index, holder))
GATE(shd_leader_open, (shd_segment *segment, const char *name,
     const struct shd_lock_options *o, shd_leader **out), (segment, name, o,
     out))
GATE(shd_leader_close, (shd_leader *leader), (leader))
GATE(shd_leader_look, (shd_leader *leader, int64_t wait_ms,
     struct shd_grant *grant), (leader, wait_ms, grant))
GATE(shd_leader_resign, (shd_leader *leader), (leader))
