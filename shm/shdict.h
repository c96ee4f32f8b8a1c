/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict.h - a dictionary in shared memory that survives kill -9.
 *
 * This header is the manual. It is plain C with fixed-width types, no
 * structs by value, no callbacks and no varargs, so that an FFI can load it.
 *
 * MODEL
 *   A *segment* is one file (tmpfs by default) shared by the workers of one
 *   application. It holds any number of named *dicts*, each with its own
 *   capacity: one dict that fills up never evicts another's entries. Every
 *   process that has a segment attached read-write is a *worker* of it.
 *
 * CRASHES
 *   A worker may be killed at any instruction. Each operation is then either
 *   wholly done or wholly not begun; one that had returned is done. Whoever
 *   meets what the dead worker left (the next caller, a supervisor) undoes
 *   it in microseconds, whatever the size of the dict. Not covered: power
 *   loss, for the segment is memory.
 *
 * RESULTS
 *   Every function that can fail returns an int: SHD_OK (0), or a negative
 *   SHD_ code. shd_strerror() gives the sentence for a code, and
 *   shd_last_error() a sentence with the details of the last failure in the
 *   calling thread. A failed call changes nothing unless its comment says
 *   otherwise. Output parameters are written only where stated.
 *   These may come from any function that takes a handle, so the comments
 *   below do not repeat them:
 *     SHD_INVAL     an argument is outside its stated limits
 *     SHD_CLOSED    the handle has been closed
 *     SHD_GONE      the dict has been destroyed by somebody
 *     SHD_BUSY      a lock was not free within the bound (wait_ms): its
 *                   owner lives, but is stopped or very slow; try again
 *     SHD_CORRUPT   the bytes in the segment contradict themselves; nothing
 *                   was followed outside the segment (see `shdict check`)
 *     SHD_READONLY  a change was asked of a read-only attachment
 *     SHD_FULL      (first change by a process) every worker slot is taken
 *     SHD_SYS       a system call failed; shd_last_error() names it
 *
 * THREADS AND FORK
 *   Handles may be shared by all threads of a process, close included (the
 *   caller must only not use a handle while another thread closes it).
 *   fork() is allowed at any time: the child keeps all handles and becomes a
 *   worker of its own by itself at its first change, and then frees the slots
 *   of workers that have died (shd_reap). Children made by raw
 *   clone() without libc's set-up are not supported: the kernel keeps no
 *   list of robust locks for them. exec() ends a worker as death does.
 *
 * READS take no lock and write nothing shared on a repeated hit, but a counter
 *   in a line of the worker's own (`shdict stat`). A read that
 *   keeps colliding with changes takes the lock after a few tries, so it
 *   never waits longer than wait_ms. A read-only attachment never takes it:
 *   past a writer that is stopped, or dead and not recovered from, it reads
 *   what was there before that one's operation, after some 20 ms.
 *
 * LIMITS
 *   key 1..65535 bytes; value up to what the dict's capacity holds, at most
 *   4 GiB - 1; segment up to 64 GiB; 1 dict 8 KiB .. the segment's size.
 */
#ifndef SHDICT_H
#define SHDICT_H

#include <stddef.h>
#include <stdint.h>

#ifndef SHD_API
#define SHD_API __attribute__((visibility("default")))
#endif
#ifndef SHD_MUST
#define SHD_MUST __attribute__((warn_unused_result))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---------------------------------------------------------- */

/* The API's version; the layout of segments has one of its own, in
 * struct shd_segment_info. */
#define SHD_VERSION_MAJOR 0
#define SHD_VERSION_MINOR 1
#define SHD_VERSION_PATCH 0

/* The library's version at run time, "0.1.0". Never NULL. */
SHD_API const char *shd_version(void);

/* ---- errors ----------------------------------------------------------- */

/* One list for codes, names and sentences: base/error.c expands it too. */
#define SHD_ERRORS(X)                                                        \
    X(NOTFOUND, -1, "not found")                                             \
    X(EXISTS, -2, "exists")                                                  \
    X(NOMEM, -3, "no memory")                                                \
    X(BUSY, -4, "busy: a lock was not free in time")                         \
    X(CORRUPT, -5, "corrupt: the segment contradicts itself")                \
    X(INVAL, -6, "invalid argument")                                         \
    X(EMPTYKEY, -7, "empty key")                                             \
    X(LONGKEY, -8, "key too long")                                           \
    X(TOOBIG, -9, "the item is larger than the dict can hold")               \
    X(NOTNUMBER, -10, "not a number")                                        \
    X(ISLIST, -11, "value is a list")                                        \
    X(NOTLIST, -12, "value not a list")                                      \
    X(SPACE, -13, "the buffer is too small")                                 \
    X(READONLY, -14, "the segment is attached read-only")                    \
    X(CLOSED, -15, "the handle is closed")                                   \
    X(GONE, -16, "the object has been destroyed")                            \
    X(SYS, -17, "a system call failed")                                      \
    X(PERM, -18, "permission denied")                                        \
    X(NAME, -19, "invalid name")                                             \
    X(FOREIGN, -20, "not a shdict segment")                                  \
    X(LAYOUT, -21, "a segment of another layout")                            \
    X(ENDIAN, -22, "a segment of another byte order")                        \
    X(NAMESPACE, -23, "a segment of another pid namespace")                  \
    X(FULL, -24, "every slot is taken")                                      \
    X(MISMATCH, -25, "exists with other properties")                         \
    X(UNSUPPORTED, -26, "not supported by this system")                      \
    X(CHANGED, -27, "changed")                                               \
    X(NOTSTRING, -28, "not a string")                                        \
    X(DEAD, -29, "the other worker has died")                                \
    X(LOST, -30, "no longer held: its time ran out, or it was given back")

#define SHD_ERROR_ENUM_(name, code, text) SHD_##name = code,
enum { SHD_OK = 0, SHD_ERRORS(SHD_ERROR_ENUM_) SHD_ERROR_LAST_ = -30 };

/* The sentence for a code. Never NULL. */
SHD_API const char *shd_strerror(int code);

/* The name of a code, "SHD_NOMEM". Never NULL. */
SHD_API const char *shd_strerror_name(int code);

/* What the last failed call of this thread has to say: which name, which
 * limit, which field differs, and what to do. Valid until the thread's next
 * failing call; "" before the first. Never NULL. */
SHD_API const char *shd_last_error(void);

/* ---- segments --------------------------------------------------------- */

typedef struct shd_segment shd_segment;

enum { /* struct shd_segment_options.flags */
    SHD_ATTACH_READONLY = 1, /* allowed from any pid namespace, and while all
                                writers hang */
    SHD_DUMPABLE = 2, /* keep the segment in core dumps: a crashing worker
                         then holds its lock until its core is written */
    SHD_ATTACH_HELD = 4, /* attach only: what this process, or its parent
                           before the fork, has attached read-write under the
                           name, else SHD_NOTFOUND. Opens nothing: it works
                           after rights were given up, and when the name has
                           been removed since or is another's */
    SHD_HUGE_PAGES = 8, /* this process: what it commits of the segment is put
                           into huge pages of 2 MiB, and mapped as such; up
                           to 2 MiB more than is used are taken. On tmpfs,
                           from Linux 6.1; elsewhere nothing happens:
                           huge_bytes in shd_segment_info tells. A dict
                           stands still for some 0.5 ms at each 2 MiB it
                           grows by: best with SHD_PREFAULT */
    SHD_PREFAULT = 16, /* this process: opening a dict takes all memory up to
                         its capacity from the system, and maps it, so that no
                         store pays for that later. shd_dict_open then gives
                         SHD_NOMEM if there is not so much (the dict is
                         there). Read-only attachments ignore it */
    SHD_INTERLEAVE = 32, /* create: memory comes from all NUMA nodes in turn,
                           whoever takes it. SHD_UNSUPPORTED: the kernel has
                           no such policies; SHD_PERM: forbidden here.
                           Attaching ignores it */
    SHD_GUARD_PAGES = 64, /* this process: 2 MiB of address space on each side
                            of the segment that nobody may touch: who runs over
                            its end, or over that of what lies beside it, gets
                            SIGSEGV there. For finding bugs; it costs nothing
                            else. The environment variable SHDICT_GUARD_PAGES=1
                            asks for it in any program */
    SHD_WRITE_PROTECT = 128 /* this process: between the calls of this library
                              it cannot write to the segment. Who does gets
                              SIGSEGV, at that instruction, and no other
                              worker sees a damaged segment. For finding bugs:
                              it costs each call some 60 ns where the
                              processor has protection keys, and some 20 us
                              of mprotect elsewhere. See WRITE PROTECTION.
                              SHDICT_WRITE_PROTECT=1 asks for it in any
                              program. Read-only attachments ignore it */
};

/* WRITE PROTECTION (SHD_WRITE_PROTECT). With protection keys the right to write
 * is each thread's own, and a thread has it only while it is in a call of this
 * library: in a handler of a signal that came meanwhile it has not, and may
 * call us all the same. Threads that were there before the first protected
 * segment was attached cannot read it either, between calls. With mprotect the
 * right is the process's: one thread's stray store is found only while no
 * other is in a call (those that wait in one do not count). A child of fork is
 * protected as its parent. One key is taken of the process's fifteen; where
 * there is none left it is mprotect, and SHDICT_WRITE_PROTECT=mprotect makes
 * it so. Stores by other means than the process's own addresses (another
 * mapping of the file, write to it) are not seen. The first attach of a
 * segment in a process decides. */
enum { /* struct shd_segment_info.write_protect; 0: it is not */
    SHD_PROTECT_KEYS = 1,
    SHD_PROTECT_PAGES = 2
};

/* Every field may be 0 for its default. */
struct shd_segment_options {
    uint32_t struct_size;  /* sizeof(struct shd_segment_options) */
    uint32_t flags;        /* SHD_ATTACH_READONLY, SHD_DUMPABLE, ... */
    uint64_t size_bytes;   /* create: room reserved for all objects, at most
                              64 GiB, default 64 GiB (sparse: what is not
                              used costs no memory) */
    uint32_t mode;         /* create: file mode, default 0600 */
    uint32_t workers_max;  /* create: worker slots, default 1024, up to
                              65535 */
    uint32_t objects_max;  /* create: named objects, default 256, up to
                              65535 */
    uint32_t locks_max;    /* create: locks (one a shard), default 4096 */
    uint32_t wait_ms;      /* this process: bound of every wait for a lock,
                              default 2000 */
    int32_t worker_id;     /* this process: logical id shown by `shdict
                              workers`; -1 is none; default: the environment
                              variable SHDICT_WORKER, else none */
    uint32_t generation;   /* this process: generation of a rolling restart;
                              default: SHDICT_GENERATION, else 0 */
    uint32_t reserved;     /* 0 */
    const char *worker_name; /* this process: up to 31 bytes; default: the
                                command's name */
};

struct shd_segment_info {
    uint32_t struct_size;    /* set by the caller */
    uint32_t layout_version;
    uint64_t size_bytes;     /* address room */
    uint64_t committed_bytes; /* memory taken from the system */
    uint64_t hash_seed;
    uint64_t creator_pid_namespace; /* inode of the namespace link */
    uint64_t created_ms;     /* wall clock, ms since 1970 */
    uint64_t incarnations;   /* workers registered so far */
    uint64_t deaths;         /* workers found dead and reaped */
    uint64_t recoveries;     /* operations of dead workers undone */
    uint64_t huge_bytes;     /* mapped in huge pages, in this process */
    uint32_t workers_max;
    uint32_t objects_max;
    uint32_t locks_max;
    uint32_t readonly;       /* 1: this attachment is read-only */
    char path[256];          /* "" for a descriptor without a name */
    uint64_t layout_fingerprint; /* sizes of all that differs by platform */
    uint64_t supervisor;     /* incarnation of the last one; 0: never any */
    uint64_t object_generations; /* objects made so far */
    uint32_t worker_generation;  /* last one given (shd_generation_next) */
    uint32_t write_protect;      /* SHD_PROTECT_KEYS ...: of this process */
    char boot_id[40];        /* of the kernel it was made on; "": unknown */
};

/* NAMES. "app" (1..200 of A-Z a-z 0-9 . _ -, not starting with a dot) is a
 * segment in tmpfs, the file /dev/shm/shdict-app. A name that starts with
 * "/", "./" or "../" is a path, on any file system that can reserve space
 * (fallocate). "fd:N" is an open descriptor, say an inherited memfd; it is
 * reopened through /proc, and N stays the caller's. Else SHD_NAME. */

/* Creates a segment; workers find either the whole segment or none.
 * SHD_EXISTS: there is one of that name, untouched. SHD_NOMEM: the file
 * system has no room. SHD_PERM, SHD_SYS (read-only file system, missing
 * directory), SHD_NAME, SHD_UNSUPPORTED: the file system cannot reserve
 * space. `name` NULL makes an anonymous one (memfd) to be inherited:
 * shd_segment_fd() gives the descriptor. */
SHD_API SHD_MUST int shd_segment_create(const char *name,
                                        const struct shd_segment_options *o,
                                        shd_segment **out);

/* Attaches to a segment that exists. SHD_NOTFOUND: none of that name.
 * SHD_FOREIGN: not a segment, or truncated. SHD_LAYOUT, SHD_ENDIAN: made by
 * another build of this library, or another machine. SHD_NAMESPACE: its
 * workers live in another pid namespace, where lock owners would be
 * mistaken (attach read-only instead). SHD_PERM: its mode forbids it; or, to
 * write, it lies where everybody may make files (/dev/shm, /tmp) and belongs
 * to neither this user nor root, or has a second name ("fd:N" is not asked).
 * A process maps a segment once: attaching again gives the same handle,
 * and each attach wants its own close. */
SHD_API SHD_MUST int shd_segment_attach(const char *name,
                                        const struct shd_segment_options *o,
                                        shd_segment **out);

/* Attaches, or creates if there is none. Two that race both get it. */
SHD_API SHD_MUST int shd_segment_open(const char *name,
                                      const struct shd_segment_options *o,
                                      shd_segment **out);

/* Detaches. The worker's slot is freed with the last close. Dict handles of
 * the segment answer SHD_CLOSED from then on. */
SHD_API int shd_segment_close(shd_segment *segment);

/* Removes the segment's name. Workers that have it attached go on with it;
 * its memory goes with the last of them. SHD_NOTFOUND, SHD_PERM, and
 * SHD_FOREIGN: the file is not a segment and was left alone. */
SHD_API SHD_MUST int shd_segment_destroy(const char *name);

/* The descriptor of the segment's file in this process, for fork and exec:
 * it is close-on-exec; pass a dup to a child as "fd:N". */
SHD_API SHD_MUST int shd_segment_fd(shd_segment *segment);

SHD_API SHD_MUST int shd_segment_info(shd_segment *segment,
                                      struct shd_segment_info *info);

/* Walks every invariant of every structure, reading only. 0 when all hold;
 * SHD_CORRUPT with the first that fails, named, in report (NUL-terminated,
 * cut at size). Reads beside the writers and looks again at what moved; then
 * locks that shard for a moment, or on a read-only attachment answers SHD_BUSY
 * if it never stood still. */
SHD_API SHD_MUST int shd_segment_check(shd_segment *segment, char *report,
                                       size_t size);

/* For a thread that shows how far a check of another one is: the entries that
 * checks in this process have looked at since it began, and those that there
 * are in the segment just now. */
SHD_API SHD_MUST int shd_check_progress(shd_segment *segment, uint64_t *done,
                                        uint64_t *total);

/* What a repair has done. */
struct shd_repair {
    uint32_t struct_size;    /* set by the caller */
    uint32_t rolled_back;    /* locks whose dead holder's work was undone */
    uint32_t rebuilt;        /* shards whose index was made from the cells */
    uint32_t reset;          /* shards that had to be emptied */
    uint32_t bounds;         /* dicts whose bounds of pages were set anew */
    uint32_t remade;         /* queues, topics, locks ... made anew, empty */
    uint64_t pages_returned; /* pages given back to the right shard */
    uint64_t pages_freed;    /* pages that had become nobody's */
    uint64_t entries_kept;   /* in rebuilt shards */
    uint64_t entries_lost;   /* in rebuilt and emptied ones, by their count */
    uint64_t elements_lost;  /* of lists that were cut */
};

/* Makes a segment sound again that somebody has scribbled over. Each lock's
 * dead holder is answered for; a shard of a dict that still fails its check is
 * rebuilt from its cells, and if that does not help emptied; a queue, topic,
 * lock, semaphore, leader or mailbox that fails is replaced by a new one,
 * empty, with numbers that go on (who has it open gets SHD_GONE, and opens it
 * again); nothing else is touched. `report` gets a line for each thing done, with the keys of the first
 * entries that were lost, NUL-terminated, cut at size. Others may go on
 * meanwhile; they cannot get at a shard while it is rebuilt, and if the caller
 * dies then they get SHD_CORRUPT from it until the next repair. A wild write
 * into a value is not seen by this, or by anything.
 * SHD_CORRUPT: what is beyond repair (header, catalogue, registry) is named in
 * the last line. SHD_BUSY, SHD_NOMEM: not finished, call again. */
SHD_API SHD_MUST int shd_segment_repair(shd_segment *segment,
                                        struct shd_repair *done, char *report,
                                        size_t size);

/* ---- snapshots --------------------------------------------------------- */

/* A snapshot is a file that holds all that is in a segment: dicts with their
 * entries (value, type, flags, expiry, what was used, the order in which they
 * would be evicted), queues with their messages (delays, deliveries, dead
 * letters), topics with the events that are kept and the named cursors, locks
 * and semaphores with the tokens they have given. It does not depend on the
 * layout of segments: one of another build, or machine, can be restored.
 *   Not in it: what belongs to workers (locks held, places in line, cursors
 * without a name, what is in mailboxes, which come back empty; a message or an
 * element that is leased is in it as one that came back, a message that is
 * reserved is not), entries that have expired, versions (VERSIONS: the dict is
 * another one), counters, and free room.
 *
 * WHAT IS CONSISTENT. Each shard of a dict is saved as it was at one moment,
 * and so is each queue, topic and lock; a dict of one shard (below 4 MiB, or
 * made so) is saved whole as it was at one moment. Every operation that had
 * returned when the save began is in it, none that began after it ended. What
 * was changed meanwhile in different shards or objects may be in it here and
 * not there. If nothing changed at all while it was saved, the whole segment is
 * as it was at one moment: struct shd_keep_info.one_moment says so.
 *   No lock is taken for what nobody changes while it is copied. Else those who
 * change that one shard or object wait while it is copied, 1 ms for some 5000
 * entries; readers never wait. hold_ms is the bound.
 *
 * The file gets its name when it is whole and on the disk: whatever happens
 * before that, an older one of the name stays. It is readable by its owner
 * only. Every byte of it is covered by a checksum (XXH3). */

typedef struct shd_save shd_save;
typedef struct shd_restore shd_restore;

struct shd_save_options {
    uint32_t struct_size; /* sizeof(struct shd_save_options) */
    uint32_t hold_ms;     /* a shard, or object, is locked for so long at most,
                             else SHD_BUSY; 0: 1000, half of what others wait */
};

enum { /* struct shd_restore_options.flags */
    SHD_RESTORE_REPLACE = 1, /* in the place of a segment of that name that has
                                no live worker */
    SHD_RESTORE_IN_USE = 2,  /* or has: they go on with the old one, which has
                                no name any more, until they attach anew */
    SHD_RESTORE_FREEZE = 4,  /* times to live, and delays, go on where they
                                were when it was saved. Without this the time
                                since then counts: what has expired by now is
                                left out */
    SHD_RESTORE_VERIFY = 8   /* reads the whole file, and makes no segment */
};

struct shd_restore_options {
    uint32_t struct_size; /* sizeof(struct shd_restore_options) */
    uint32_t flags;       /* SHD_RESTORE_ */
    const struct shd_segment_options *segment; /* those of this process: flags,
                             wait_ms, worker_id, generation, worker_name; the
                             others are the snapshot's. NULL: defaults */
};

struct shd_keep_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t done;        /* 1: the file, or the segment, is there */
    uint64_t at, total;   /* how far it is: of a save, entries, as many as there
                             were at first; of a restore bytes of the file,
                             total 0: not known */
    uint64_t saved_ms;    /* wall clock, when the save began */
    uint64_t objects;
    uint64_t entries;     /* lists count as one */
    uint64_t elements;    /* of lists */
    uint64_t messages;
    uint64_t events;
    uint64_t expired;     /* entries left out for that */
    uint64_t evicted;     /* restore: entries that there was no room for */
    uint64_t bytes;       /* of the file, so far */
    uint64_t held_ns;     /* save: longest time that a lock was held */
    uint32_t one_moment;  /* save, done: 1: nothing changed meanwhile */
    uint32_t dropped;     /* save: objects destroyed meanwhile */
    char name[256];       /* of the segment that was saved; "": it had none */
};

/* Saves the segment to the file, in steps: a step copies a shard or an object,
 * or writes up to 1 MiB, so that a host can go on with other things in between.
 * `path` "fd:N" writes to a descriptor, a pipe say. A save is used by one
 * thread at a time, and takes as much memory as the largest shard, queue or
 * topic. SHD_PERM, SHD_SYS, SHD_NAME: the file. SHD_NOMEM: there is no room for
 * it. On a read-only attachment it takes no lock at all, and gives SHD_BUSY
 * where a shard never stands still for wait_ms. */
SHD_API SHD_MUST int shd_save_open(shd_segment *segment, const char *path,
                                   const struct shd_save_options *o,
                                   shd_save **out);

/* 1: there is more to do. 0: the file is there. Or an error; then only closing
 * it is of use. SHD_BUSY: see hold_ms. */
SHD_API SHD_MUST int shd_save_step(shd_save *save);
SHD_API SHD_MUST int shd_save_info(shd_save *save, struct shd_keep_info *info);

/* What is not done leaves nothing. */
SHD_API int shd_save_close(shd_save *save);

/* All of it in one call. o, info: may be NULL. */
SHD_API SHD_MUST int shd_segment_save(shd_segment *segment, const char *path,
                                      const struct shd_save_options *o,
                                      struct shd_keep_info *info);

/* Restores it into a new segment, name NULL: of the name it had. The segment
 * gets its name in one step when all is in it; killed before that, it leaves
 * nothing. SHD_EXISTS: there is one, see SHD_RESTORE_REPLACE, or it has live
 * workers. SHD_FOREIGN: the file is no snapshot. SHD_LAYOUT: of a later
 * version. SHD_CORRUPT: damaged, or cut off; shd_last_error() says where.
 * SHD_NOTFOUND, SHD_PERM, SHD_SYS. SHD_NOMEM: no room for the segment. */
SHD_API SHD_MUST int shd_restore_open(const char *path, const char *name,
                                      const struct shd_restore_options *o,
                                      shd_restore **out);

/* As shd_save_step: some thousand entries a step. */
SHD_API SHD_MUST int shd_restore_step(shd_restore *restore);
SHD_API SHD_MUST int shd_restore_info(shd_restore *restore,
                                      struct shd_keep_info *info);

/* *segment, if not NULL, is attached to what was restored, when that is done,
 * else NULL. */
SHD_API int shd_restore_close(shd_restore *restore, shd_segment **segment);

/* All of it in one call. o, info, segment: may be NULL. */
SHD_API SHD_MUST int shd_segment_restore(const char *path, const char *name,
                                         const struct shd_restore_options *o,
                                         struct shd_keep_info *info,
                                         shd_segment **segment);

/* ---- objects ----------------------------------------------------------- */

/* The objects in the segment: index 0 .. objects_max - 1. 0 when the slot
 * is taken, SHD_NOTFOUND when it is free, SHD_INVAL past the end. */
struct shd_object_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t kind;        /* SHD_OBJECT_ */
    uint64_t generation;  /* never the same for two objects */
    uint64_t size_bytes;  /* capacity */
    uint64_t created_ms;  /* wall clock */
    char name[64];
};
enum {
    SHD_OBJECT_DICT = 1,
    SHD_OBJECT_QUEUE = 2,
    SHD_OBJECT_TOPIC = 3,
    SHD_OBJECT_LOCK = 4,
    SHD_OBJECT_SEMAPHORE = 5,
    SHD_OBJECT_MAILBOX = 6,
    SHD_OBJECT_LEADER = 7
};

/* "dict", "queue", ... Never NULL: "unknown". */
SHD_API const char *shd_object_kind_name(uint32_t kind);

/* Destroys the object of that name, whatever its kind. Who waits for something
 * of it gets SHD_GONE. SHD_NOTFOUND. */
SHD_API SHD_MUST int shd_object_destroy(shd_segment *segment,
                                        const char *name);

SHD_API SHD_MUST int shd_object_info(shd_segment *segment, uint32_t index,
                                     struct shd_object_info *info);

/* A part of a segment's file. */
struct shd_region {
    uint32_t struct_size;  /* set by the caller */
    uint32_t kind;         /* SHD_OBJECT_ of the object it is of; 0: none */
    uint64_t at;           /* byte offset in the file */
    uint64_t bytes;        /* of address room, up to the next part */
    uint64_t used_bytes;   /* of it that is in use just now, as the tables
                              say: taken locks, live slots, pages of shards */
    uint64_t memory_bytes; /* of it that lies in memory: it has been touched
                              since it was taken from the system */
    uint64_t generation;   /* of the object; 0: none */
    char part[32];         /* "header", "locks", "pages" ...; "room": nobody's;
                              "damaged": an object that contradicts itself */
    char object[64];       /* its name; "": the segment's own */
};
typedef struct shd_layout shd_layout;

/* What a segment's file consists of, in its order, without gaps: `bytes` of
 * all parts is the size of the file. Takes no lock. Free with shd_layout_free.
 * SHD_NOMEM: this process has no memory for the list. SHD_CORRUPT: *out is
 * there all the same, and what slots of the catalogue own that contradict
 * themselves is "room" in it. */
SHD_API SHD_MUST int shd_layout_get(shd_segment *segment, shd_layout **out);
SHD_API uint64_t shd_layout_count(const shd_layout *layout);

/* Part number index. SHD_NOTFOUND: past the end. */
SHD_API SHD_MUST int shd_layout_at(const shd_layout *layout, uint64_t index,
                                   struct shd_region *region);
SHD_API void shd_layout_free(shd_layout *layout);

/* ---- waiting ---------------------------------------------------------- */

/* WAITING. Functions that may wait take wait_ms: 0 does not wait, SHD_FOREVER
 * waits without an end, else it is the most ms to wait. A waiting thread
 * sleeps in the kernel until it is woken, and looks by itself every 250 ms, in
 * case the one to wake it died: so a missing supervisor costs time, never
 * progress. Interrupting signals do not end a wait. An event loop does not
 * wait in these functions but on shd_worker_fd. */
enum { SHD_FOREVER = -1 };

/* ---- workers ---------------------------------------------------------- */

enum { /* struct shd_worker_info.state */
    SHD_WORKER_ALIVE = 1,
    SHD_WORKER_DEAD = 2 /* its process is gone and nobody has reaped it yet */
};
struct shd_worker_info {
    uint32_t struct_size;  /* set by the caller */
    uint32_t state;
    uint64_t incarnation;  /* unique in the segment's life, never reused */
    uint64_t pid_namespace;
    uint64_t start_time;   /* of the process, clock ticks since boot */
    uint64_t joined_ms;    /* wall clock */
    uint32_t pid;
    int32_t worker_id;     /* -1: none */
    uint32_t generation;
    uint32_t locks_held;   /* locks whose owner it is just now */
    char name[32];
    uint32_t phase;        /* SHD_PHASE_ */
    uint32_t restarts;     /* how often its place has been filled anew in its
                              generation; SHDICT_RESTARTS, else 0 */
    int64_t silent_ms;     /* since shd_worker_beat; -1: never called */
    uint32_t supervisor;   /* 1: it has the segment's supervision
                              (shd_watch_open) */
    uint32_t reserved;
};
enum { /* struct shd_worker_info.phase: what a worker, or who runs it, says */
    SHD_PHASE_NONE = 0,     /* nothing */
    SHD_PHASE_STARTING = 1, /* it joined with SHDICT_PHASE=starting, and is
                               not ready yet */
    SHD_PHASE_READY = 2,
    SHD_PHASE_DRAINING = 3  /* it finishes what it has, and ends: nothing new
                               should be given to it */
};

/* Registers this process as a worker now; without it the first change
 * does. Gives the incarnation. SHD_FULL: every slot is held by a live
 * worker (workers_max). */
SHD_API SHD_MUST int shd_worker_join(shd_segment *segment,
                                     uint64_t *incarnation);

/* Slot index 0 .. workers_max - 1. 0, SHD_NOTFOUND: the slot is free,
 * SHD_INVAL: past the end. Works on a read-only attachment. */
SHD_API SHD_MUST int shd_worker_info(shd_segment *segment, uint32_t index,
                                     struct shd_worker_info *info);

/* 1: that worker is registered, and its process is there. 0: it has left or
 * died, for certain. Takes no lock; one system call. */
SHD_API SHD_MUST int shd_worker_is_alive(shd_segment *segment,
                                         uint64_t incarnation);

/* For a supervisor, or anybody: finds workers whose process is gone (proved
 * by a file lock the kernel drops at death, never by a timeout), undoes
 * what they were in the middle of, frees their slots and wakes all waiters.
 * *reaped, if not NULL, gets the number of workers freed. Bounded work: a
 * few hundred ns for each lock and each slot. */
SHD_API SHD_MUST int shd_reap(shd_segment *segment, uint32_t *reaped);

/* A heartbeat: this worker is not stuck. Call it from the loop that does the
 * work, as often as you like (some 10 ns). A supervisor that was told to
 * (shd_watch_open, `shdict supervise --hang`) kills a worker whose heart has
 * beaten once and then stops; one that never calls this is not judged. */
SHD_API int shd_worker_beat(shd_segment *segment);

/* Says how far a worker is: SHD_PHASE_. `incarnation` 0 is this process.
 * SHD_NOTFOUND: there is no such worker any more. */
SHD_API SHD_MUST int shd_worker_set_phase(shd_segment *segment,
                                          uint64_t incarnation,
                                          uint32_t phase);

/* Sends a signal to a worker's process, and never to another one that has got
 * its number since. signal 0: only looks whether it is there. SHD_NOTFOUND: it
 * is gone. SHD_PERM. SHD_NAMESPACE: it is of another pid namespace. */
SHD_API SHD_MUST int shd_worker_signal(shd_segment *segment,
                                       uint64_t incarnation, int signal);

/* What a worker holds, by object: index 0 is the segment's own locks, 1 ..
 * objects_max the objects in the order of shd_object_info. 0 when it holds
 * something of that one; SHD_NOTFOUND: nothing; SHD_INVAL: past the end. Works
 * on a read-only attachment; the next moment may be different. */
struct shd_hold {
    uint32_t struct_size; /* set by the caller */
    uint32_t kind;        /* SHD_OBJECT_, 0: the segment itself */
    uint64_t count;       /* of a queue: messages on a lease, or reserved; of a
                             lock or semaphore: permits; of a topic: cursors;
                             of a mailbox: requests to be answered; of a
                             dict: elements of lists on a lease, or being
                             moved, and the locks; of the segment: the locks
                           */
    uint64_t locks;       /* inner locks, taken for the length of a call */
    char object[64];      /* its name, "" of the segment */
};
SHD_API SHD_MUST int shd_worker_hold(shd_segment *segment,
                                     uint64_t incarnation, uint32_t index,
                                     struct shd_hold *hold);

/* For who starts workers. A new generation: above that of every worker there
 * is, and never given again in the segment's life. Its workers get it as
 * SHDICT_GENERATION, or in their options. SHD_FULL: all 2^32 - 1 are used. */
SHD_API SHD_MUST int shd_generation_next(shd_segment *segment,
                                         uint32_t *generation);

/* Marks the workers of the generations below this one (and with a logical id)
 * as SHD_PHASE_DRAINING; *marked, if not NULL, tells how many were not so
 * before. It sends no signal. */
SHD_API SHD_MUST int shd_generation_drain(shd_segment *segment,
                                          uint32_t generation,
                                          uint32_t *marked);
/* A descriptor that becomes readable when something this worker has armed its
 * bell on (shd_queue_arm and its like) may have happened: for epoll, libuv,
 * asyncio ... It belongs to this process and is
 * shared with none: a child of fork asks for its own. The same one each time;
 * never read from it, but call shd_worker_fd_clear, then look at the objects,
 * arm again what turned out to be empty, and go back to the event loop. The
 * bell may ring in vain. It is a socket in the abstract namespace: a worker in
 * another network namespace cannot ring it. SHD_READONLY, SHD_SYS. */
SHD_API SHD_MUST int shd_worker_fd(shd_segment *segment);

/* Makes it unreadable until the next ring. */
SHD_API SHD_MUST int shd_worker_fd_clear(shd_segment *segment);

/* Ends this process's registration; the next change registers anew. */
SHD_API int shd_worker_leave(shd_segment *segment);

/* ---- watching workers ------------------------------------------------- */

/* For who runs workers, or stands beside them (a sidecar): it hears of each
 * death within a millisecond, whoever started the worker, and has then undone
 * what the dead one was in the middle of, freed its slot and woken all who
 * waited (shd_reap). Waiting is for one descriptor: nothing is polled.
 * A watch is private to the process and is used by one thread at a time. The
 * child of a fork has none: SHD_CLOSED. */
typedef struct shd_watch shd_watch;

enum { /* struct shd_watch_options.flags */
    SHD_WATCH_SUPERVISE = 1, /* be the segment's supervisor, of which there is
                                one. The claim ends with the watch, or with
                                the process, by a file lock */
    SHD_WATCH_HOLD_IN_CHILDREN = 2 /* a child of fork keeps the claim until it
                                      execs or ends: whoever claims next finds
                                      no worker half started */
};
struct shd_watch_options {
    uint32_t struct_size; /* sizeof(struct shd_watch_options) */
    uint32_t flags;       /* SHD_WATCH_ */
    uint32_t hang_ms;     /* tell of a worker that called shd_worker_beat and
                             has not done so for that long; 0: never */
    uint32_t lock_ms;     /* tell of who has sat on one lock for that long and
                             changed nothing; 0: never */
};

enum { /* struct shd_watch_event.event */
    SHD_WATCH_JOINED = 1, /* also for each worker that is there at first */
    SHD_WATCH_LEFT = 2,   /* its slot was given back in peace */
    SHD_WATCH_DIED = 3,   /* and all it left is recovered */
    SHD_WATCH_PHASE = 4,  /* it says another SHD_PHASE_ */
    SHD_WATCH_HUNG = 5,   /* hang_ms; once, until its heart beats again */
    SHD_WATCH_STUCK = 6   /* lock_ms; once for each time. incarnation and pid
                             are 0 where the holder is no worker */
};
struct shd_watch_event {
    uint32_t struct_size; /* set by the caller */
    uint32_t event;
    uint64_t incarnation;
    uint32_t pid;
    int32_t worker_id;    /* -1: none */
    uint32_t generation;
    uint32_t phase;       /* JOINED, PHASE */
    uint64_t recovered;   /* DIED: operations undone; of several that were
                             found dead at once, with the first */
    uint64_t took_ns;     /* DIED: how long the recovery took */
    uint64_t at_ns;       /* DIED: when it was done, CLOCK_MONOTONIC */
    uint64_t for_ms;      /* HUNG, STUCK: how long by now; time in which this
                             process did not run does not count */
    char name[32];
    char object[64];      /* STUCK: whose lock; "": the segment's own */
};

/* o NULL: only deaths, joins and phases. SHD_EXISTS: the segment has a living
 * supervisor, shd_last_error() tells its process. SHD_NOMEM. */
SHD_API SHD_MUST int shd_watch_open(shd_segment *segment,
                                    const struct shd_watch_options *o,
                                    shd_watch **out);

/* Before the segment is closed. */
SHD_API int shd_watch_close(shd_watch *watch);

/* A descriptor for poll, epoll and event loops: readable when shd_watch_next
 * should be called, with timeout 0, until it gives SHD_NOTFOUND. It stays the
 * watch's: do not read or close it. */
SHD_API SHD_MUST int shd_watch_fd(shd_watch *watch);

/* The next event; waits at most timeout_ms, below 0 for ever. SHD_NOTFOUND:
 * none in that time, or a signal came. What hangs is only told: to end it is
 * shd_worker_signal's. */
SHD_API SHD_MUST int shd_watch_next(shd_watch *watch, int64_t timeout_ms,
                                    struct shd_watch_event *event);

/* ---- dicts ------------------------------------------------------------ */

typedef struct shd_dict shd_dict;

enum { /* struct shd_dict_options.flags */
    SHD_DICT_ANY_CAPACITY = 1 /* the capacity is for making it: one that is
                                 there, and was resized, is opened as it is */
};

struct shd_dict_options {
    uint32_t struct_size;    /* sizeof(struct shd_dict_options) */
    uint32_t shards;         /* power of two up to 256; 0: by capacity (one
                                below 4 MiB, then one a 2 MiB and at least
                                8) */
    uint64_t capacity_bytes; /* entries and all their overhead; at least
                                8192; rounded up to 4096 */
    uint64_t entries_hint;   /* expected number of entries, sizes the index;
                                0: one a 128 bytes of capacity. It follows
                                the capacity when that is changed; more
                                entries than can fit just now are how many
                                there will be in the end */
    uint64_t capacity_max_bytes; /* what the dict can grow to: address room is
                                reserved for it, which costs no memory; 0: 16
                                times the capacity and at least 64 MiB, or
                                less where the segment has little room left
                                (shd_dict_info tells) */
    uint32_t flags;          /* SHD_DICT_ANY_CAPACITY */
    uint32_t reserved;       /* 0 */
};

/* Opens the dict of that name (1..63 bytes, no NUL, '/' or control bytes),
 * and makes it if it is not there and o is given with a capacity.
 * SHD_NOTFOUND: not there, and no capacity given. SHD_MISMATCH: it is there
 * with another capacity (see SHD_DICT_ANY_CAPACITY); shd_last_error() says
 * which, and shd_dict_resize changes it. SHD_NOMEM: the
 * segment or the file system has no room. SHD_FULL: no object slot or lock
 * is left. SHD_NAME. Opening it again gives the same handle; each open
 * wants its own close. */
SHD_API SHD_MUST int shd_dict_open(shd_segment *segment, const char *name,
                                   const struct shd_dict_options *o,
                                   shd_dict **out);

SHD_API int shd_dict_close(shd_dict *dict);

/* Destroys the dict of that name and gives its memory back to the system.
 * Handles of it, in every process, answer SHD_GONE. SHD_NOTFOUND. SHD_BUSY,
 * SHD_SYS (no memory could be given back): there is no dict of that name any
 * more; whoever makes or destroys an object next does the rest. */
SHD_API SHD_MUST int shd_dict_destroy(shd_segment *segment,
                                      const char *name);

/* Gives the dict another capacity, while others go on using it; handles stay
 * what they are. It takes effect at once: from the first step on, capacity()
 * and info say the new one.
 *   Up: only memory for more roots (3 %, or as entries_hint said) and for the
 * descriptors of the new pages (1.2 %) is taken now. Steps of 256 MiB; the
 * capacity goes up with each.
 *   Down: what lies in pages above the new capacity moves into free room below
 * it; where there is none, room is made as for a store: expired entries go
 * first, then the least recently used. Nothing is removed while it all fits.
 * Then those pages go back to the system. Each step is a small transaction in
 * one shard.
 *   Up and down by a factor of two and more: the entries go over to another
 * index, of as many roots as if the dict had been made so (from 64 KiB on, and
 * not under 1024), each in a transaction of its own. Until that is done both
 * indexes have memory, the former one beyond the capacity.
 *   Cut off anywhere (a death, SHD_BUSY, SHD_NOMEM) the dict is sound and
 * usable, at its new capacity; pages above it may still hold entries, and keep
 * their memory, until any later shd_dict_resize, also to the same capacity,
 * has finished the work; shd_dict_info.resizing says so. What is left to do at
 * the index stores do meanwhile, a bounded part each.
 *   Of two calls at once the later one decides: the other one ends with
 * SHD_BUSY.
 * SHD_INVAL: more than capacity_max_bytes as the dict was made, or too little
 * for its index and one page; shd_last_error() says which bound, and what to
 * do. SHD_NOMEM: the file system has no room for the roots or descriptors, or
 * stores took the room below the new capacity as fast as it was made. */
SHD_API SHD_MUST int shd_dict_resize(shd_dict *dict, uint64_t capacity_bytes);

struct shd_dict_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t shards;
    uint64_t generation;
    uint64_t capacity_bytes;
    uint64_t free_bytes;      /* free pages and free cells */
    uint64_t index_bytes;     /* roots, marks, page table, shard heads */
    uint64_t pages;           /* of 4096 bytes */
    uint64_t pages_free;
    uint64_t pages_committed; /* taken from the system so far */
    uint64_t roots;           /* of the index, which follows the capacity */
    uint64_t entries;         /* stored, expired ones included */
    uint64_t cells_bytes;     /* in cells handed out */
    uint64_t value_max_bytes; /* largest value a one-byte key can have */
    uint64_t evictions;       /* live entries removed by force */
    uint64_t expirations;     /* expired entries removed */
    uint64_t moves;           /* cells moved to free a page */
    uint64_t recoveries;      /* operations of dead workers undone */
    uint64_t lock_waits;      /* lock acquisitions that had to wait */
    char name[64];
    uint64_t capacity_max_bytes; /* what shd_dict_resize can make of it */
    uint64_t resizes;         /* times its capacity was changed */
    uint64_t resizing;        /* 1: a resize is going on, or was cut off */
    uint64_t hits;            /* reads that found a live value; those of threads
                                 of one process that count at one moment may
                                 count as one */
    uint64_t misses;          /* reads that found none */
    uint64_t changes;         /* transactions: a few for each store */
    uint64_t leases;          /* elements of lists that workers have on a lease
                                 (shd_ltake), or are just moving */
};
SHD_API SHD_MUST int shd_dict_info(shd_dict *dict,
                                   struct shd_dict_info *info);

/* One shard of a dict, index 0 .. shards - 1; SHD_INVAL past the end. Takes no
 * lock. */
struct shd_shard_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t pages;       /* it owns */
    uint64_t entries;
    uint64_t changes;     /* transactions */
    uint64_t evictions;
    uint64_t lock_waits;
    uint64_t holder;      /* incarnation of who has its lock now; 0: nobody */
};
SHD_API SHD_MUST int shd_shard_info(shd_dict *dict, uint32_t index,
                                    struct shd_shard_info *info);

/* Where every byte of a dict is. */
struct shd_dict_account {
    uint32_t struct_size; /* set by the caller */
    uint32_t classes;     /* of cells: how many of the arrays' elements count */
    uint64_t capacity_bytes;   /* rounded up to 4096: the exact sum of the
                                  bytes from here to padding_bytes */
    uint64_t live_bytes;       /* keys, values, elements of what is alive */
    uint64_t expired_bytes;    /* cells of expired entries, all they own */
    uint64_t garbage_bytes;    /* cells waiting to be freed, of a long value
                                  that is being built, or kept for the next
                                  (3 % of the dict at most) */
    uint64_t entry_bytes;      /* heads of live entries: links, expiry ... */
    uint64_t list_bytes;       /* heads of elements of lists */
    uint64_t chain_bytes;      /* heads of the pieces of long values */
    uint64_t rounding_bytes;   /* cells are larger than what is in them */
    uint64_t free_cells_bytes; /* in pages that have used cells as well */
    uint64_t free_pages_bytes;
    uint64_t page_tail_bytes;  /* what no cell fits into */
    uint64_t header_bytes;
    uint64_t shards_bytes;     /* heads of shards */
    uint64_t map_bytes;        /* of free pages */
    uint64_t table_bytes;      /* of pages */
    uint64_t roots_bytes;      /* the index */
    uint64_t marks_bytes;      /* of entries in use */
    uint64_t padding_bytes;
    uint64_t entries_live;
    uint64_t entries_expired;
    uint64_t pages;            /* of 4096 bytes */
    uint64_t pages_needed;     /* for all that is alive, moved together */
    uint64_t value_max_bytes;  /* largest value a one-byte key can have */
    uint64_t safe_value_max_bytes; /* and have without evicting anything */
    uint64_t class_cell_bytes[32];
    uint64_t class_pages[32];
    uint64_t class_used_cells[32];
    uint64_t class_free_cells[32];
};

/* Looks twice at every page, without a lock: for people, who ask now and then.
 * Each page is counted as it was at one moment, so the sum is right beside
 * writers too; elements of an expired list beyond 4096 count as alive.
 * SHD_NOMEM: this process has no memory to remember what has expired.
 * SHD_BUSY, SHD_CORRUPT. */
SHD_API SHD_MUST int shd_dict_account(shd_dict *dict,
                                      struct shd_dict_account *account);

enum { /* struct shd_page.state */
    SHD_PAGE_FREE = 0,
    SHD_PAGE_USED = 1,
    SHD_PAGE_LEAVING = 2,   /* used; what is in it is to move elsewhere */
    SHD_PAGE_UNTOUCHED = 3, /* free, and never taken from the system */
    SHD_PAGE_DAMAGED = 4    /* contradicts itself; see `shdict check` */
};
struct shd_page {
    uint32_t state;      /* SHD_PAGE_; the rest is of used and leaving ones */
    uint32_t shard;      /* whose it is */
    uint32_t cell_bytes; /* of each of its cells */
    uint32_t cells;      /* that it has; and in use, by what they hold: */
    uint32_t entries;    /* heads of entries */
    uint32_t expired;    /* of these, have expired */
    uint32_t elements;   /* of lists */
    uint32_t pieces;     /* of long values */
    uint32_t age_s;      /* since a cell of it was last taken, modulo 65536 */
    uint32_t beyond;     /* 1: above the capacity, until its resize is done */
};

/* Pages number first, first+1 ... of a dict, at most max; *count gets how
 * many, 0 after the last. For pictures: takes no lock and waits for nobody, so
 * that it works while every worker hangs, and on damaged segments; each word
 * is as it was at one moment, of an operation that is in flight, or was cut
 * off, half may show. (shd_dict_account is exact.) */
SHD_API SHD_MUST int shd_dict_pages(shd_dict *dict, uint64_t first,
                                    struct shd_page *pages, uint32_t max,
                                    uint32_t *count);

enum { /* types of values */
    SHD_NIL = 0,
    SHD_STRING = 1,
    SHD_NUMBER = 2,  /* double */
    SHD_BOOLEAN = 3, /* number is 0 or 1 */
    SHD_LIST = 4
};

/* What a read found. The caller need not clear it. */
struct shd_value {
    uint32_t type;    /* SHD_STRING, SHD_NUMBER, SHD_BOOLEAN; SHD_LIST from
                         shd_scan */
    int32_t flags;    /* the user's flags */
    uint64_t len;     /* SHD_STRING: bytes; SHD_LIST: elements */
    double number;    /* SHD_NUMBER, SHD_BOOLEAN */
    int64_t ttl_ms;   /* ms left; 0: never expires; negative: expired */
};

/* Common to all operations on a key: SHD_EMPTYKEY (key_len 0), SHD_LONGKEY
 * (over 65535). Times to live are in ms: 0 never expires, negative is
 * SHD_INVAL, and what would end after the year 10000 never expires. */

/* Reads a live value. A string is copied to buf if it fits in size bytes,
 * else SHD_SPACE with v->len telling the need. SHD_NOTFOUND: missing or
 * expired. SHD_ISLIST. Takes no lock; marks the entry as used. */
SHD_API SHD_MUST int shd_get(shd_dict *dict, const void *key, size_t key_len,
                             void *buf, size_t size, struct shd_value *v);

/* The same, and finds expired entries as long as they are stored: v->ttl_ms
 * is negative then. Marks only a live entry as used. */
SHD_API SHD_MUST int shd_get_stale(shd_dict *dict, const void *key,
                                   size_t key_len, void *buf, size_t size,
                                   struct shd_value *v);

enum { /* shd_store */
    SHD_SET = 0,     /* whatever is there */
    SHD_ADD = 1,     /* only if missing or expired, else SHD_EXISTS */
    SHD_REPLACE = 2, /* only if live, else SHD_NOTFOUND */
    SHD_SAFE = 4     /* or'ed: evict nothing that is alive; SHD_NOMEM if
                        there is no room then */
};

/* WHAT FITS. An item takes cells of 48, 64, 80, 96, 112, 128, 160, 192, 224,
 * 256, 304, 368, 448, 512, 576, 672, 816, 1024, 1360, 2048 or 4096 bytes, the
 * smallest that will do:
 *   an entry     32 + key padded to 8 (over 1024 bytes: 16, and the padded key
 *                opens its chain) + 8 if flags are not 0 + value (number,
 *                boolean: 8; list: 16)
 *   an element   24 + value (number: 8)
 *   a chain      what would be over 4096: a cell of 4096 for each 4072 bytes,
 *                one for the rest + 24, and 8 instead of the value
 * Of more than 1024 bytes an entry without a chain takes two smaller ones, for
 * 32 more, if that is a twentieth less (in a dict of 64 pages or more).
 * The cells of one size and one shard share pages of 4096 bytes; the dict has
 * shd_dict_info.pages of them.
 *
 * A plain store of what fits into the dict alone, each cell in a page of its
 * own, succeeds, whatever the dict holds, and else is SHD_TOOBIG: it evicts as
 * much as it must. A SHD_SAFE store and shd_push succeed whenever the pages
 * for all that is alive (an old value included) and for the item are no more
 * than the dict has, counting for each shard and size the cells divided by
 * those in a page, rounded up; what is alive moves together as needed. Neither
 * counts garbage or what has expired. shd_dict_account tells how much is left:
 * moved together, what is alive leaves less than 13 pages in a shard unused.
 *
 * Work: to free a page a store moves what is in one, if free cells of that
 * size can take it, else evicts what is in one (at most 85 entries); where
 * that is held up by parts of something long, at worst 395. What evicted
 * entries owned is freed 64 cells in a hold of the lock, 64 times a store.
 * (Beside others that store all the time a store that needs room gives up
 * after 64 rounds, with SHD_NOMEM.) In a dict of 8192 bytes, which has one
 * page, all cells are of one size, which changes only when it is emptied;
 * smaller items take larger cells there.
 *
 * A failed store changes no live entry; it may have freed expired ones. The
 * new value takes the place of the old at one moment, for readers and for who
 * dies; only where the dict cannot hold both is the old one evicted first. */

/* Stores a value: type SHD_STRING with value/len (value may be NULL when len
 * is 0), SHD_NUMBER or SHD_BOOLEAN with number. Replaces value, type, flags
 * and expiry at once, over a list too. Without SHD_SAFE it makes room by
 * removing expired entries (of all shards), then the least recently stored
 * that nobody has read or changed since; *forcible, if not
 * NULL, is 1 if a live entry had to go, and is written on failure too.
 * SHD_TOOBIG: larger than the dict. SHD_NOMEM: see SHD_SAFE; also when the
 * file system is full. A failed store leaves the old value. */
SHD_API SHD_MUST int shd_store(shd_dict *dict, uint32_t op, const void *key,
                               size_t key_len, uint32_t type,
                               const void *value, size_t len, double number,
                               int64_t ttl_ms, int32_t flags,
                               uint32_t *forcible);

/* shd_store of a string, for C. */
SHD_API SHD_MUST int shd_set(shd_dict *dict, const void *key, size_t key_len,
                             const void *value, size_t len, int64_t ttl_ms);

/* Removes a key, of any type. SHD_NOTFOUND if it was not live. */
SHD_API SHD_MUST int shd_delete(shd_dict *dict, const void *key,
                                size_t key_len);

/* Adds `by` to a live number, keeping its expiry and flags; *result gets
 * the sum. Missing or expired: SHD_NOTFOUND, or if has_init is not 0 stores
 * init + by with flags 0 and expiry init_ttl_ms, as shd_store would.
 * SHD_NOTNUMBER: live, and no number. */
SHD_API SHD_MUST int shd_incr(shd_dict *dict, const void *key,
                              size_t key_len, double by, int has_init,
                              double init, int64_t init_ttl_ms,
                              double *result, uint32_t *forcible);

/* Reads and deletes a live value at once. SHD_NOTFOUND, SHD_ISLIST.
 * SHD_SPACE: size is too small, v->len tells the need, nothing was deleted. */
SHD_API SHD_MUST int shd_take(shd_dict *dict, const void *key, size_t key_len,
                              void *buf, size_t size, struct shd_value *v);

/* Adds bytes at the end of a live string, or before it if left is not 0,
 * keeping its expiry and flags; *length, if not NULL, gets the new length.
 * Missing or expired: SHD_NOTFOUND, or if init is not NULL stores init and
 * the bytes joined, with flags 0 and expiry init_ttl_ms. SHD_NOTSTRING: live,
 * and no string. SHD_TOOBIG, SHD_NOMEM: as shd_store, but it removes nothing
 * of its own value to make room. Adding at the end of a long value does not
 * copy it; adding before one does, and needs room for both. */
SHD_API SHD_MUST int shd_append(shd_dict *dict, int left, const void *key,
                                size_t key_len, const void *value, size_t len,
                                const void *init, size_t init_len,
                                int64_t init_ttl_ms, uint64_t *length,
                                uint32_t *forcible);

/* *ttl_ms: ms left, 0 for never, negative for an expired entry that is still
 * stored. SHD_NOTFOUND. Takes no lock, marks nothing. */
SHD_API SHD_MUST int shd_ttl(shd_dict *dict, const void *key, size_t key_len,
                             int64_t *ttl_ms);

/* Sets the time to live, of an expired entry too (it lives again).
 * SHD_NOTFOUND. Does not count as use. */
SHD_API SHD_MUST int shd_expire(shd_dict *dict, const void *key,
                                size_t key_len, int64_t ttl_ms);

enum { SHD_KEEP_TTL = -1 };

/* Makes a live entry of any type the most recently used, and sets its time to
 * live unless ttl_ms is SHD_KEEP_TTL. SHD_NOTFOUND: missing or expired. */
SHD_API SHD_MUST int shd_touch(shd_dict *dict, const void *key, size_t key_len,
                               int64_t ttl_ms);

/* Marks every entry as expired: shd_get_stale still sees them. A sequence
 * of small steps, each bounded; entries stored meanwhile may be marked, and
 * one that another worker's making room moves meanwhile may be missed. */
SHD_API SHD_MUST int shd_flush_all(shd_dict *dict);

/* Frees expired entries, at most max (0: all). *freed, if not NULL, gets
 * the number. Small steps; other workers are never held up. */
SHD_API SHD_MUST int shd_flush_expired(shd_dict *dict, uint64_t max,
                                       uint64_t *freed);

SHD_API SHD_MUST int shd_capacity(shd_dict *dict, uint64_t *bytes);
SHD_API SHD_MUST int shd_free_space(shd_dict *dict, uint64_t *bytes);

/* ---- changes on a condition --------------------------------------------- */

/* Compares and sets in one step: stores the new value, with flags and expiry,
 * if the live value is the old one, of the same type with the same bytes or
 * number (0 is -0, and NaN is NaN); flags and expiry do not count. old_type
 * SHD_NIL: if there is none. type SHD_NIL: deletes it instead.
 * SHD_CHANGED: live, and another value or a list. SHD_NOTFOUND: an old value
 * was given, and the key is missing or expired. SHD_EXISTS: old_type is
 * SHD_NIL, and it is live. SHD_NOMEM: also when there is room only at the cost
 * of the value that is compared. *forcible as of shd_store. Holds the lock
 * while it compares. */
SHD_API SHD_MUST int shd_cas(shd_dict *dict, const void *key, size_t key_len,
                             uint32_t old_type, const void *old,
                             size_t old_len, double old_number, uint32_t type,
                             const void *value, size_t len, double number,
                             int64_t ttl_ms, int32_t flags,
                             uint32_t *forcible);

/* VERSIONS. Every change of an entry gives it another version: a store of any
 * kind, shd_incr, shd_append, shd_expire, and shd_touch with a time to live.
 * While the dict is there (one made anew under its name counts anew) a
 * key never has the same version twice, also when it was deleted or evicted
 * in between. A version is not 0, and fits a double's 53 bits for the first 28
 * years of 10 million changes a second. Strings, numbers and booleans have
 * versions, lists do not.
 *   An entry takes 8 bytes more from the first time its version is asked for,
 * or it was stored by version, until a store needs another cell for it; all
 * others pay nothing. */

/* As shd_get, and gives the version. The first to ask makes a change: it takes
 * the lock, makes room as shd_store does, and may fail with SHD_NOMEM,
 * SHD_READONLY ...; from then on, reading it takes none. */
SHD_API SHD_MUST int shd_get_versioned(shd_dict *dict, const void *key,
                                       size_t key_len, void *buf, size_t size,
                                       struct shd_value *v,
                                       uint64_t *version);

/* Stores a value if the entry still has the version *version (0: if there is
 * none that is live), or with type SHD_NIL deletes it; *version gets the new
 * one, 0 after a deletion. SHD_CHANGED, SHD_NOTFOUND, SHD_EXISTS, SHD_NOMEM
 * and *forcible as of shd_cas. */
SHD_API SHD_MUST int shd_store_versioned(shd_dict *dict, const void *key,
                                         size_t key_len, uint32_t type,
                                         const void *value, size_t len,
                                         double number, int64_t ttl_ms,
                                         int32_t flags, uint64_t *version,
                                         uint32_t *forcible);

/* ---- many keys ---------------------------------------------------------- */

/* Each key is read, or stored, atomically by itself; others may change keys
 * in between. All keys of a call are looked for at once in memory, so many
 * keys of a large dict take a fraction of the time of as many calls. codes[]
 * tells for each key, whatever the call returns, which is SHD_OK or the first
 * code that is no answer about a key: SHD_SPACE, SHD_NOMEM, SHD_EMPTYKEY,
 * SHD_CLOSED ... Only if an array is NULL or op is wrong nothing is done at
 * all: SHD_INVAL. */

/* As shd_get for each: codes[i] is SHD_OK, SHD_NOTFOUND, SHD_ISLIST ... The
 * strings lie one after the other in buf, that of key i from at[i] on;
 * SHD_SPACE: this one did not fit into what was left, values[i].len tells the
 * need, and those after it are read all the same. values[i].type is SHD_NIL if
 * there is no value. */
SHD_API SHD_MUST int shd_get_multi(shd_dict *dict, uint32_t count,
                                   const void *const *keys,
                                   const size_t *key_lens, void *buf,
                                   size_t size, struct shd_value *values,
                                   size_t *at, int32_t *codes);

/* As shd_store for each, in their order: values[i] with bytes[i] for a string
 * (values[i].ttl_ms is its time to live). SHD_NIL deletes (op SHD_SET only)
 * and is SHD_OK if there was none, too. *forcible: of any of them. */
SHD_API SHD_MUST int shd_set_multi(shd_dict *dict, uint32_t op, uint32_t count,
                                   const void *const *keys,
                                   const size_t *key_lens,
                                   const struct shd_value *values,
                                   const void *const *bytes, int32_t *codes,
                                   uint32_t *forcible);

/* ---- lists ------------------------------------------------------------ */

/* Pushes a string or a number at the left or the right end; *length, if not
 * NULL, gets the new length. A missing or expired key becomes a new list
 * that never expires; a live list keeps its expiry. Evicts nothing alive:
 * SHD_NOMEM. SHD_NOTLIST: live, and no list. */
SHD_API SHD_MUST int shd_push(shd_dict *dict, int left, const void *key,
                              size_t key_len, uint32_t type,
                              const void *value, size_t len, double number,
                              uint64_t *length);

/* The same, and sets the time to live of the whole list at once, a live one's
 * too; 0: it never expires. */
SHD_API SHD_MUST int shd_push_expire(shd_dict *dict, int left, const void *key,
                                     size_t key_len, uint32_t type,
                                     const void *value, size_t len,
                                     double number, int64_t ttl_ms,
                                     uint64_t *length);

/* Takes the value at an end out; the last one takes the key with it.
 * SHD_NOTFOUND: missing or expired. SHD_NOTLIST. SHD_SPACE: size is too
 * small, v->len tells the need, nothing was taken. */
SHD_API SHD_MUST int shd_pop(shd_dict *dict, int left, const void *key,
                             size_t key_len, void *buf, size_t size,
                             struct shd_value *v);

/* The length; 0 when missing or expired. SHD_NOTLIST. Takes no lock. Elements
 * that are on a lease do not count. */
SHD_API SHD_MUST int shd_llen(shd_dict *dict, const void *key,
                              size_t key_len, uint64_t *length);

/* Takes the value at an end of one list and pushes it at an end of another, or
 * of the same one, which may be in whichever shards: as shd_pop and shd_push,
 * with the errors of both, but all or nothing, and the value is copied to buf.
 * SHD_NOTFOUND also if the list it comes from has been deleted, or evicted, in
 * the meantime. Whatever fails, the element is back at the end that it was at.
 * Nobody ever has it twice; while it goes from one shard to another it is for
 * a moment in neither list, and the other one may be there without an element.
 * One that dies has moved it or not: what is between two shards goes on, or
 * back, with the next shd_reap, or when somebody finds that list empty. Takes
 * the shards' locks, one at a time. */
SHD_API SHD_MUST int shd_lmove(shd_dict *dict, int from_left, const void *from,
                               size_t from_len, int to_left, const void *to,
                               size_t to_len, void *buf, size_t size,
                               struct shd_value *v);

/* As shd_pop, but on a *lease*: nobody else can have the element, and it is
 * gone when this worker says that it is done (shd_lack). It goes back to the
 * end it came from when this worker says so (shd_lnack), or is dead: with the
 * next shd_reap, or when somebody finds the list empty. *lease names it until
 * then. A lease has no end in time, and counts no deliveries: shd_queue_take
 * has both. A list whose elements are all leased stays, with a length of 0; it
 * expires, is evicted and deleted as any other, and what is leased out of it
 * goes with it: who has it then is told so (SHD_LOST). Evicts nothing alive:
 * SHD_NOMEM, no room for the lease, 64 bytes. Giving back needs none. One that
 * dies in it has the element on a lease, which ends, or not. Takes the lock of
 * its shard. */
SHD_API SHD_MUST int shd_ltake(shd_dict *dict, int left, const void *key,
                               size_t key_len, void *buf, size_t size,
                               struct shd_value *v, uint64_t *lease);

/* Ends a lease that shd_ltake gave this worker: the element is done; it goes
 * back. SHD_LOST: this worker has no such lease (it was ended, or is of
 * another process), or its list has gone, and the element with it. Takes the
 * lock of its shard; all or nothing. */
SHD_API SHD_MUST int shd_lack(shd_dict *dict, uint64_t lease);
SHD_API SHD_MUST int shd_lnack(shd_dict *dict, uint64_t lease);

struct shd_lease_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t shard;       /* of the list */
    uint64_t holder;      /* incarnation of the worker that has it */
    uint64_t lease;       /* what shd_ltake gave it */
    uint32_t moving;      /* 1: a shd_lmove from shard to shard is at it, which
                             has a lease in each; 0: it is of shd_ltake */
    uint32_t dead;        /* 1: the holder has died: it comes back with the next
                             shd_reap */
    uint32_t type;        /* of the element: SHD_STRING, SHD_NUMBER; 0: one that
                             moves is no longer, or not yet, there */
    uint32_t reserved;
    uint64_t len;         /* bytes of a string */
};

/* The lease that comes after *info's shard, holder and lease (all 0: the
 * first), and the key of its list: empty where type is 0. Each that is there
 * throughout comes once. Changes nothing, takes no lock.
 * SHD_NOTFOUND: the end. SHD_SPACE: the key is longer than key_size, *key_len
 * tells; *info stays as it was then, and with any other error. */
SHD_API SHD_MUST int shd_lease_next(shd_dict *dict,
                                    struct shd_lease_info *info,
                                    void *key_buf, size_t key_size,
                                    size_t *key_len);

/* ---- walking ---------------------------------------------------------- */

enum { SHD_SCAN_EXPIRED = 1 }; /* flags: expired entries as well */

/* The first live entry after the key `after` (NULL: from the start) in the
 * dict's fixed order; `after` need not be stored any more. A walk gives each
 * key that is there throughout exactly once, holds no lock between calls
 * and blocks nobody. The key goes to key_buf and *key_len (SHD_SPACE if it
 * is over key_size: 65535 always does), a string value to buf if it fits;
 * if not, v->len > size tells so and the call succeeds (a walk over keys
 * gives size 0). SHD_NOTFOUND: the end. */
SHD_API SHD_MUST int shd_scan(shd_dict *dict, const void *after,
                              size_t after_len, uint32_t flags,
                              void *key_buf, size_t key_size,
                              size_t *key_len, void *buf, size_t size,
                              struct shd_value *v);

/* Elements number from, from+1 ... of a list, at most max, as they were at one
 * moment; a long list is read in several calls. values[i].type is SHD_STRING
 * or SHD_NUMBER; the bytes of a string lie in buf from at[i] on. *count gets
 * how many fitted, *length the list's. flags: SHD_SCAN_EXPIRED. Changes
 * nothing, does not count as use, takes no lock.
 * SHD_NOTFOUND, SHD_NOTLIST. SHD_SPACE: not even the first one fits,
 * values[0].len tells the need. */
SHD_API SHD_MUST int shd_list_read(shd_dict *dict, const void *key,
                                   size_t key_len, uint32_t flags,
                                   uint64_t from, uint32_t max, void *buf,
                                   size_t size, struct shd_value *values,
                                   size_t *at, uint32_t *count,
                                   uint64_t *length);

struct shd_entry_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t type;        /* SHD_STRING ... SHD_LIST */
    int32_t flags;        /* the user's flags */
    uint32_t age_min_s;   /* it was stored at least so many seconds ago, modulo
                             65536: since then nothing was stored in its page */
    uint64_t len;         /* bytes, or elements */
    double number;        /* SHD_NUMBER, SHD_BOOLEAN */
    int64_t ttl_ms;       /* ms left; 0: never; negative: expired */
    uint64_t version;     /* 0: nobody has asked for it (VERSIONS) */
    uint32_t used;        /* 1: read, or in a dict of several shards changed
                             where it is, since room was last looked for near
                             it */
    uint32_t shard;
};

/* What is known of an entry, expired ones too. Changes nothing, does not count
 * as use, takes no lock. SHD_NOTFOUND. */
SHD_API SHD_MUST int shd_entry_info(shd_dict *dict, const void *key,
                                    size_t key_len,
                                    struct shd_entry_info *info);

typedef struct shd_keys shd_keys;

/* Live keys, at most max (0: all): in a dict of one shard the least recently
 * stored first, in one of several in no order. Free with
 * shd_keys_free. SHD_NOMEM: this process has no memory for the list. */
SHD_API SHD_MUST int shd_keys_get(shd_dict *dict, uint64_t max,
                                  shd_keys **out);
SHD_API uint64_t shd_keys_count(const shd_keys *keys);

/* Key number index; *len gets its length. NULL past the end. */
SHD_API const char *shd_keys_at(const shd_keys *keys, uint64_t index,
                                size_t *len);
SHD_API void shd_keys_free(shd_keys *keys);

/* ---- queues ------------------------------------------------------------- */

/* A queue carries messages of any length from any number of producers to any
 * number of consumers. What push has returned for is there whoever dies
 * afterwards, and is handed out first in, first out.
 *
 *   At most once: shd_queue_pop takes a message out.
 *   At least once: shd_queue_take gives it out on a *lease*. It is gone when
 * the consumer acknowledges it (shd_queue_ack), and comes back, to the front
 * of the queue, when the consumer says so (shd_queue_nack), when its lease
 * ends (if the queue has lease_ms), or at once when the consumer is dead: as
 * soon as anybody reaps, and else when a consumer that finds nothing else
 * looks, which one that waits does every 250 ms. Exactly once, if nobody dies
 * and no lease ends. A message that has been delivered deliveries_max times
 * without being acknowledged becomes a *dead letter*, which stays in the
 * queue's memory until it is drained or put back (shd_queue_requeue), or, if
 * the queue says so (dead_to), goes to another queue and is a message of that
 * one, delivered to nobody yet: at once, or when there is such a queue, and
 * room in it. It is in one of the two at any time, also when who moves it is
 * killed: the next reap, or who takes from either, goes on.
 *
 * A queue is bounded, by bytes and if wanted by messages, and never drops
 * anything: who pushes to a full one waits, or gets SHD_FULL. */

typedef struct shd_queue shd_queue;

/* Every field may be 0 for its default. */
struct shd_queue_options {
    uint32_t struct_size;    /* sizeof(struct shd_queue_options) */
    uint32_t deliveries_max; /* a message that came back so many times is a
                                dead letter; 0: never */
    uint64_t capacity_bytes; /* memory for messages, up to 64 GiB; default 1
                                MiB; taken from the system as it is needed */
    uint64_t message_bytes;  /* a message up to that length takes one cell, a
                                longer one as many as it needs; default 160.
                                A cell has 96 bytes more, rounded up to 64 */
    uint64_t messages_max;   /* no more than so many, dead letters not
                                counted; 0: as many as fit */
    uint64_t lease_ms;       /* leases end after that; 0: only with the death
                                of the consumer */
    const char *dead_to;     /* the queue that dead letters go to; it may be
                                made later. NULL: they stay */
};

enum { /* struct shd_message.state, and `which` */
    SHD_MESSAGE_READY = 1,
    SHD_MESSAGE_DELAYED = 2,
    SHD_MESSAGE_LEASED = 3,
    SHD_MESSAGE_RESERVED = 4,
    SHD_MESSAGE_DEAD = 5
};

struct shd_message {
    uint64_t len;       /* bytes */
    uint64_t id;        /* 1, 2 ... in the order of pushing; a letter from
                           another queue gets a new one, */
    uint64_t lease;     /* for shd_queue_ack and its like */
    uint64_t from;      /* incarnation of the worker that pushed it, there */
    uint64_t holder;    /* leased: incarnation of the consumer; else 0 */
    uint64_t pushed_ms; /* wall clock, of the kernel's last tick */
    int64_t when_ms;    /* delayed: ms until it is ready; leased: ms until the
                           lease ends; -1: no such time */
    uint32_t attempts;  /* deliveries so far, this one included */
    uint32_t state;     /* SHD_MESSAGE_ */
};

struct shd_queue_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t cell_bytes;
    uint64_t generation;
    uint64_t capacity_bytes;
    uint64_t message_bytes;
    uint64_t messages_max;
    uint64_t lease_ms;
    uint64_t cells;
    uint64_t cells_used;
    uint64_t bytes;       /* of all messages in it */
    uint32_t deliveries_max;
    uint32_t ready;       /* messages */
    uint32_t delayed;
    uint32_t leased;
    uint32_t dead;
    uint32_t reservations; /* not committed */
    uint64_t pushed;      /* so far, and what became of them: */
    uint64_t popped;
    uint64_t acked;
    uint64_t drained;
    uint64_t buried;      /* became dead letters */
    uint64_t redelivered; /* came back and were handed out again, */
    uint64_t expired;     /* of those that came back: by the end of a lease, */
    uint64_t orphaned;    /* by the death of the consumer */
    uint64_t forwarded;   /* dead letters that went to the queue dead_to */
    char name[64];
    char dead_to[64];     /* "": dead letters stay */
};

/* Opens the queue of that name, and makes it if it is not there and o is
 * given. SHD_MISMATCH: it is there and one of the options that are not 0 is
 * another; or it is no queue. SHD_INVAL: dead_to is its own name. SHD_NOTFOUND, SHD_NOMEM, SHD_FULL, SHD_NAME as
 * of shd_dict_open. */
SHD_API SHD_MUST int shd_queue_open(shd_segment *segment, const char *name,
                                    const struct shd_queue_options *o,
                                    shd_queue **out);
SHD_API int shd_queue_close(shd_queue *queue);

/* Who waits for something of it gets SHD_GONE. */
SHD_API SHD_MUST int shd_queue_destroy(shd_segment *segment, const char *name);

/* One state of the queue; takes no lock. */
SHD_API SHD_MUST int shd_queue_info(shd_queue *queue,
                                    struct shd_queue_info *info);

/* Pushes a message, which can be taken after delay_ms (0: at once). *id, if
 * not NULL, gets its number. SHD_FULL: there was no room within wait_ms (see
 * WAITING). SHD_TOOBIG: larger than the queue. SHD_NOMEM: the system has no
 * memory. Takes the queue's lock; one that dies has pushed it wholly or not at
 * all. More than 16 KiB are copied without holding the lock. */
SHD_API SHD_MUST int shd_queue_push(shd_queue *queue, const void *data,
                                    size_t len, int64_t delay_ms,
                                    int64_t wait_ms, uint64_t *id);

/* The same for `count` messages in their order, data[i] of len[i] bytes; ids,
 * if not NULL, gets their numbers. In steps of up to 64 messages or 16 KiB,
 * each under one hold of the lock and with one wake-up, which is what makes
 * small messages cheap. *pushed gets how many are in: all of them if it
 * returns SHD_OK, else the first so many, and the error is about the next one:
 * SHD_FULL, SHD_TOOBIG ... as of push. One that dies has pushed the first so
 * many, wholly: each step is all or nothing, and with a delay, or of more than
 * 16 KiB, each message is. */
SHD_API SHD_MUST int shd_queue_push_many(shd_queue *queue, uint32_t count,
                                         const void *const *data,
                                         const size_t *len, int64_t delay_ms,
                                         int64_t wait_ms, uint64_t *ids,
                                         uint32_t *pushed);

/* The same in steps: room for a message of len bytes (as push), its bytes in
 * any number of pieces, then commit, which hands it on, or cancel. *lease
 * names it until then. Bytes that are never written are 0. A reservation ends
 * with its worker. SHD_LOST: it is not this worker's reservation. */
SHD_API SHD_MUST int shd_queue_reserve(shd_queue *queue, size_t len,
                                       int64_t wait_ms, uint64_t *lease);
SHD_API SHD_MUST int shd_queue_write(shd_queue *queue, uint64_t lease,
                                     uint64_t at, const void *data,
                                     size_t len);
SHD_API SHD_MUST int shd_queue_commit(shd_queue *queue, uint64_t lease,
                                      int64_t delay_ms, uint64_t *id);
SHD_API SHD_MUST int shd_queue_cancel(shd_queue *queue, uint64_t lease);

/* Takes the first message out, or on a lease. SHD_NOTFOUND: none came within
 * wait_ms. SHD_SPACE: size is too small, m->len tells the need, nothing was
 * taken. A popper that dies has taken it or not; it is given to nobody twice. A
 * long one (over 16 KiB) is leased while it is copied, so it comes back if the
 * popper dies before it had it. */
SHD_API SHD_MUST int shd_queue_pop(shd_queue *queue, void *buf, size_t size,
                                   int64_t wait_ms, struct shd_message *m);
SHD_API SHD_MUST int shd_queue_take(shd_queue *queue, void *buf, size_t size,
                                    int64_t wait_ms, struct shd_message *m);

/* The same for up to `max` messages, in one step: those that are there and fit
 * into buf, at most 64, or 16 KiB, or one longer one; waits only if there is
 * none. Message i is m[i], its bytes lie in buf from at[i] on, and *taken gets
 * how many they are. SHD_SPACE: the first one does not fit, m[0].len tells the
 * need. One that dies has taken all of these or none; of a queue with lease_ms,
 * the first so many. */
SHD_API SHD_MUST int shd_queue_pop_many(shd_queue *queue, uint32_t max,
                                        void *buf, size_t size,
                                        int64_t wait_ms, struct shd_message *m,
                                        size_t *at, uint32_t *taken);
SHD_API SHD_MUST int shd_queue_take_many(shd_queue *queue, uint32_t max,
                                         void *buf, size_t size,
                                         int64_t wait_ms,
                                         struct shd_message *m, size_t *at,
                                         uint32_t *taken);

/* What becomes of a message that this worker has on that lease: it is done;
 * it goes back (after delay_ms); its lease ends in lease_ms from now, whatever
 * the queue's is (0: only with this worker). SHD_LOST: the lease is not this
 * worker's any more (it ended, was acknowledged, or is of another process),
 * and nothing has changed. */
SHD_API SHD_MUST int shd_queue_ack(shd_queue *queue, uint64_t lease);
SHD_API SHD_MUST int shd_queue_nack(shd_queue *queue, uint64_t lease,
                                    int64_t delay_ms);
SHD_API SHD_MUST int shd_queue_extend(shd_queue *queue, uint64_t lease,
                                      int64_t lease_ms);

/* Acknowledges `count` leases, in any order; cheapest in that of taking.
 * codes[i], if codes is not NULL: SHD_OK or SHD_LOST, for each; it returns the
 * first that is not SHD_OK, and the others are acknowledged all the same. In
 * steps of up to 64, each all or nothing; of leases that end, each by itself.
 */
SHD_API SHD_MUST int shd_queue_ack_many(shd_queue *queue, uint32_t count,
                                        const uint64_t *leases,
                                        int32_t *codes);

/* Looks at message number index (from 0) of those that are ready, delayed,
 * leased, reserved or dead, the next in turn first, and changes nothing. As
 * many of its bytes as fit are copied. SHD_NOTFOUND: there are no more. Takes
 * no lock; walks there from the first. */
SHD_API SHD_MUST int shd_queue_peek(shd_queue *queue, uint32_t which,
                                    uint64_t index, void *buf, size_t size,
                                    struct shd_message *m);

/* Throws away messages that are ready, delayed or dead (`which`; 0: ready and
 * delayed), at most max (0: all). *n, if not NULL, gets the number. Small
 * steps: nobody is held up. */
SHD_API SHD_MUST int shd_queue_drain(shd_queue *queue, uint32_t which,
                                     uint64_t max, uint64_t *n);

/* Puts dead letters back to the end of the queue, as if never delivered. */
SHD_API SHD_MUST int shd_queue_requeue(shd_queue *queue, uint64_t max,
                                       uint64_t *n);

/* For an event loop: 1 if there is a message to be taken just now (with `room`
 * not 0: a free place to push to); else 0, and shd_worker_fd() becomes readable
 * when there may be one. Once: arm again after each look. *again_ms, if not
 * NULL, gets the ms after which to look in any case, for a delayed message or
 * the end of a lease, for which nobody rings (lease_ms at most, if the queue
 * has one); -1: no need. */
SHD_API SHD_MUST int shd_queue_arm(shd_queue *queue, int room,
                                   int64_t *again_ms);

/* ---- topics ----------------------------------------------------------- */

/* A TOPIC is a ring of events that any worker publishes and all subscribers
 * get: each of them every event, or exactly how many it missed. "One of the
 * workers handles this" is a queue. Events have numbers, 1, 2, 3 ..., which are
 * their one order. An event is published for all or, when its publisher is
 * killed, for nobody.
 *   The ring keeps the newest events that fit: 16 bytes, and the data padded
 * to 16, each; and at times up to a sixteenth more. A subscriber that falls
 * further behind misses the oldest; it never holds a publisher up, alive,
 * stopped or dead. In a lossless topic it does while it lives: a publisher
 * waits until the slowest has read what would have to go. */
typedef struct shd_topic shd_topic;
typedef struct shd_subscription shd_subscription;

enum { /* struct shd_topic_options.flags */
    SHD_TOPIC_CREATE = 1,  /* make it if it is not there */
    SHD_TOPIC_LOSSLESS = 2 /* publishers wait for subscribers that live */
};

struct shd_topic_options {
    uint32_t struct_size;     /* sizeof(struct shd_topic_options) */
    uint32_t flags;
    uint64_t capacity_bytes;  /* of the ring, 4096 .. 4 GiB, default 1 MiB; it
                                 and a sixteenth are taken from the system at
                                 once */
    uint32_t subscribers_max; /* cursors: names, and in a lossless topic all
                                 subscribers; default 4 times the segment's
                                 workers_max and at least 64, at most 65535 */
    uint32_t reserved;        /* 0 */
};

/* Opens the topic of that name (as shd_dict_open has them), o NULL: only if it
 * is there. SHD_NOTFOUND. SHD_MISMATCH: no topic, or made with another
 * capacity or another mode. SHD_NOMEM, SHD_FULL, SHD_NAME. Opening it again
 * gives the same handle; each open wants its own close. */
SHD_API SHD_MUST int shd_topic_open(shd_segment *segment, const char *name,
                                    const struct shd_topic_options *o,
                                    shd_topic **out);

SHD_API int shd_topic_close(shd_topic *topic);

/* Publishes len bytes (0 or more); *seq, if not NULL, gets the event's number.
 * Wakes who waits. In a lossless topic that is full it waits for wait_ms, else
 * wait_ms does not matter. SHD_FULL: a live subscriber has not read what would
 * have to go. SHD_TOOBIG: more than the capacity less 16. */
SHD_API SHD_MUST int shd_topic_publish(shd_topic *topic, const void *data,
                                       size_t len, int64_t wait_ms,
                                       uint64_t *seq);

/* The same for `count` events in their order, data[i] of len[i] bytes; seqs, if
 * not NULL, gets their numbers. In steps of up to 16 KiB, each under one hold of
 * the lock and with one wake-up: all or nothing, also if its publisher dies.
 * *published gets how many there are: all of them if it returns SHD_OK, else
 * the first so many, and the error is about the next one. */
SHD_API SHD_MUST int shd_topic_publish_many(shd_topic *topic, uint32_t count,
                                            const void *const *data,
                                            const size_t *len, int64_t wait_ms,
                                            uint64_t *seqs,
                                            uint32_t *published);

struct shd_topic_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t lossless;    /* 1: yes */
    uint64_t generation;
    uint64_t capacity_bytes;
    uint64_t kept_bytes;  /* in use: up to the capacity and a sixteenth */
    uint64_t published;   /* events so far: the number of the newest */
    uint64_t oldest;      /* number of the oldest that is kept; published + 1:
                             none is */
    uint32_t cursors;     /* in use */
    uint32_t cursors_max;
    char name[64];
};
SHD_API SHD_MUST int shd_topic_info(shd_topic *topic,
                                    struct shd_topic_info *info);

/* The cursors that are in the segment: of the names, and of all subscribers to
 * a lossless topic. index 0 .. cursors_max - 1: 0, SHD_NOTFOUND: free,
 * SHD_INVAL: past the end. */
struct shd_cursor_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t dead;        /* 1: its subscriber is proved dead */
    uint64_t owner;       /* incarnation of its subscriber; 0: none just now */
    uint64_t next;        /* number of the next event it wants; of one without
                             a name as of some events ago, until it sleeps */
    uint64_t behind;      /* events published that it has not done with */
    char name[64];        /* "": none */
};
SHD_API SHD_MUST int shd_topic_cursor(shd_topic *topic, uint32_t index,
                                      struct shd_cursor_info *info);

enum { /* shd_topic_subscribe */
    SHD_FROM_NOW = 0,   /* what is published from now on */
    SHD_FROM_OLDEST = 1 /* and what is kept */
};

/* Subscribes. With a name (1..63 bytes; NULL: none) the place is kept in the
 * segment, also when its worker dies or closes: who subscribes by that name
 * next goes on after the last event that was done with, and `from` counts only
 * the first time. SHD_EXISTS: a live worker is subscribed by that name.
 * SHD_FULL: subscribers_max. Without a name, and unless the topic is lossless,
 * it costs the segment nothing and works on a read-only attachment.
 *   A subscription is used by one thread at a time. A child of fork goes on
 * with a copy of its parent's, unless it is one that is kept in the segment:
 * that is the parent's alone (SHD_LOST). */
SHD_API SHD_MUST int shd_topic_subscribe(shd_topic *topic, const char *name,
                                         uint32_t from,
                                         shd_subscription **out);

/* Ends it: a name keeps its place, after what was given last. */
SHD_API int shd_subscription_close(shd_subscription *subscription);

struct shd_event {
    uint64_t seq; /* its number */
    uint64_t at;  /* where its data lies in buf */
    uint64_t len; /* of the data */
};

/* The next events, up to `max`, oldest first, as many as fit: their data one
 * after the other in buf, and *count of them. If there are none, waits for
 * wait_ms. *missed: so many were published before the first of these, and were
 * gone before this subscriber came for them; received and missed together are
 * always what was published. 0 with *count 0: something was missed, and what
 * comes after it is not there yet. SHD_NOTFOUND: nothing came in time.
 * SHD_SPACE: the next one does not fit, events[0].len tells the need; call
 * again. Takes no lock, but to sleep, and to keep a place in the segment:
 *   what a call gave is done with when the next one is made, or acknowledged,
 * or closed. So after a death a name gets again what its worker was given
 * last. */
SHD_API SHD_MUST int shd_subscription_next(shd_subscription *subscription,
                                           void *buf, size_t size,
                                           int64_t wait_ms,
                                           struct shd_event *events,
                                           uint32_t max, uint32_t *count,
                                           uint64_t *missed);

/* What was given is done with. */
SHD_API SHD_MUST int shd_subscription_acknowledge(shd_subscription *s);

/* The worker's bell (shd_worker_fd) rings once, as soon as there is something:
 * 0. 1: there is already, and it will not ring. */
SHD_API SHD_MUST int shd_subscription_arm(shd_subscription *subscription);

/* Forgets a name that nobody is subscribed by. SHD_NOTFOUND. SHD_EXISTS: a
 * live worker is. */
SHD_API SHD_MUST int shd_topic_forget(shd_topic *topic, const char *name);

/* ---- mailboxes ---------------------------------------------------------- */

/* A MAILBOX carries messages to one worker, and answers back. Each worker that
 * listens has a box in it. Others name it by its incarnation (which is never
 * given again, so a message cannot reach a later worker by mistake), and find
 * that by its logical id.
 *   A *post* wants no answer. What post has returned for is received once, in
 * the order of sending, unless its receiver dies or leaves first: a box goes
 * with its worker. ("Whoever is there does it" is a queue, "all or nobody hear
 * of it" a topic.)
 *   A *request* ends in one of: the answer; SHD_DEAD, as soon as the receiver
 * is known to have died or left, before it took the request or after; SHD_LOST,
 * it was declined; or its sender cancels it, or dies: then a box that has it
 * still loses it, and who answers it gets SHD_LOST. Without a supervisor a
 * waiting requester finds a death within 250 ms.
 *   A mailbox is bounded, by bytes, and each inbox by a part of them, so that
 * one worker that does not look keeps others' mail away only from itself: who
 * sends to a full box waits, or gets SHD_FULL. An answer lies where its request
 * did, so it has room if it is no longer than that, or than the room that the
 * requester asked for; a longer one may have to wait.
 *   Handles, numbers and messages are this worker's: a child of fork is another
 * one. */
typedef struct shd_mailbox shd_mailbox;

/* Every field may be 0 for its default. */
struct shd_mailbox_options {
    uint32_t struct_size;    /* sizeof(struct shd_mailbox_options) */
    uint32_t reserved;       /* 0 */
    uint64_t capacity_bytes; /* memory for messages, up to 64 GiB; default 1
                                MiB; taken from the system as it is needed */
    uint64_t message_bytes;  /* as of a queue: default 160 */
    uint64_t box_bytes;      /* of it, as much as the messages that wait in one
                                box may take; default a quarter */
};

/* Opens the mailbox of that name, and makes it if it is not there and o is
 * given. Errors as shd_queue_open. */
SHD_API SHD_MUST int shd_mailbox_open(shd_segment *segment, const char *name,
                                      const struct shd_mailbox_options *o,
                                      shd_mailbox **out);

/* This worker's box stays until it leaves or dies. */
SHD_API int shd_mailbox_close(shd_mailbox *mailbox);

/* From now on this worker can be sent to. Receiving says so as well. */
SHD_API SHD_MUST int shd_mailbox_listen(shd_mailbox *mailbox);

/* No more: posts that wait in its box are gone, requests that wait there or
 * that it has taken fail with SHD_DEAD. Its own requests go on. */
SHD_API SHD_MUST int shd_mailbox_leave(shd_mailbox *mailbox);

/* The worker with that logical id that listens; of several that of the newest
 * generation, one that drains only if there is no other. SHD_NOTFOUND. */
SHD_API SHD_MUST int shd_mailbox_find(shd_mailbox *mailbox, int32_t worker_id,
                                      uint64_t *incarnation);

struct shd_mail {
    uint64_t len;     /* bytes */
    uint64_t id;      /* 1, 2 ... in the order of sending */
    uint64_t from;    /* incarnation of the sender; of an answer: of its
                         request's */
    uint64_t to;      /* of the receiver */
    uint64_t request; /* names it, for the answer; 0: a post */
    uint64_t sent_ms; /* wall clock */
    uint32_t received; /* 1: its receiver had taken it. Told with SHD_DEAD,
                          too: what it asked for may be half done */
    uint32_t reserved;
};

/* Sends a message that wants no answer; *id, if not NULL, gets its number.
 * SHD_FULL: no room within wait_ms. SHD_NOTFOUND: that worker does not listen.
 * SHD_DEAD. SHD_TOOBIG: more than a box holds. SHD_NOMEM. Takes the mailbox's
 * lock; one that dies has sent it wholly or not at all. More than 16 KiB are
 * copied without holding it. */
SHD_API SHD_MUST int shd_mailbox_post(shd_mailbox *mailbox, uint64_t to,
                                      const void *data, size_t len,
                                      int64_t wait_ms, uint64_t *id);

/* The same to each worker that listens now, but this one; *reached, if not
 * NULL, gets how many. SHD_FULL: so many, and others had no room within
 * wait_ms, which is for all together. Not all at once: a sender that dies has
 * sent to some. */
SHD_API SHD_MUST int shd_mailbox_post_all(shd_mailbox *mailbox,
                                          const void *data, size_t len,
                                          int64_t wait_ms, uint32_t *reached);

/* The next message to this worker. SHD_NOTFOUND: none came within wait_ms.
 * SHD_SPACE: size is too small, m->len tells the need, nothing was taken.
 * m->request is not 0: a request, which wants shd_mailbox_answer or _decline
 * by this worker, and takes room in the mailbox until then. */
SHD_API SHD_MUST int shd_mailbox_receive(shd_mailbox *mailbox, void *buf,
                                         size_t size, int64_t wait_ms,
                                         struct shd_mail *m);

/* Answers it. SHD_LOST: its sender does not wait any more, or it has been
 * answered; nothing is left of it. SHD_FULL: longer than the room it has, and
 * no more was free within wait_ms; it can be answered still. SHD_TOOBIG. */
SHD_API SHD_MUST int shd_mailbox_answer(shd_mailbox *mailbox,
                                        uint64_t request, const void *data,
                                        size_t len, int64_t wait_ms);

/* Its sender gets SHD_LOST. SHD_LOST: as answer. */
SHD_API SHD_MUST int shd_mailbox_decline(shd_mailbox *mailbox,
                                         uint64_t request);

/* Sends a request, with room for an answer of at least answer_bytes, and does
 * not wait for that. *request names it: each wants shd_mailbox_await until it
 * says something else than 1 or SHD_SPACE, or shd_mailbox_cancel. Errors as
 * post. */
SHD_API SHD_MUST int shd_mailbox_request(shd_mailbox *mailbox, uint64_t to,
                                         const void *data, size_t len,
                                         size_t answer_bytes, int64_t wait_ms,
                                         uint64_t *request);

/* The answer to a request of this worker. 1: not within wait_ms. SHD_DEAD,
 * SHD_LOST: as above, and *m tells which and whether it had been received.
 * SHD_SPACE: size is too small, m->len tells the need, it is still there.
 * SHD_NOTFOUND: no such request of this worker (any more). An event loop that
 * has no supervisor calls it now and then, say every 250 ms, also when no bell
 * rings, to find deaths. */
SHD_API SHD_MUST int shd_mailbox_await(shd_mailbox *mailbox, uint64_t request,
                                       void *buf, size_t size,
                                       int64_t wait_ms, struct shd_mail *m);

/* Its answer is not wanted any more. What the receiver has begun it may well
 * finish. SHD_NOTFOUND: as await. */
SHD_API SHD_MUST int shd_mailbox_cancel(shd_mailbox *mailbox,
                                        uint64_t request);

/* All in one: a request, and its answer within wait_ms (SHD_BUSY: not in time,
 * it was cancelled). SHD_SPACE: the answer is longer than size; m->request
 * names it, for another await or cancel. Else as request and await. */
SHD_API SHD_MUST int shd_mailbox_call(shd_mailbox *mailbox, uint64_t to,
                                      const void *data, size_t len, void *buf,
                                      size_t size, int64_t wait_ms,
                                      struct shd_mail *m);

/* For an event loop: 1 if there is a message, or an answer, for this worker
 * just now; else 0, and shd_worker_fd() becomes readable when there is. Once:
 * arm again after each look. */
SHD_API SHD_MUST int shd_mailbox_arm(shd_mailbox *mailbox);

/* The same for room: 1 if len bytes could be sent to that worker. */
SHD_API SHD_MUST int shd_mailbox_arm_room(shd_mailbox *mailbox, uint64_t to,
                                          size_t len);

struct shd_mailbox_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t cell_bytes;
    uint64_t generation;
    uint64_t capacity_bytes;
    uint64_t message_bytes;
    uint64_t box_bytes;
    uint64_t cells;
    uint64_t cells_used;
    uint64_t bytes;     /* of all messages in it */
    uint32_t boxes_max; /* the segment's workers_max */
    uint32_t boxes;     /* that somebody has */
    uint32_t listening; /* of those */
    uint32_t waiting;   /* messages to be received */
    uint32_t working;   /* requests to be answered, and what is being copied */
    uint32_t answers;   /* to be looked at by who asked */
    uint64_t sent;      /* so far, and what became of them: */
    uint64_t received;
    uint64_t unread;    /* went before they were received */
    uint64_t requests;  /* of those sent; and they were */
    uint64_t answered;
    uint64_t declined;
    uint64_t failed;    /* their receiver died or left */
    uint64_t withdrawn; /* their sender cancelled them, or died */
    char name[64];
};

/* One state of the mailbox; takes no lock. */
SHD_API SHD_MUST int shd_mailbox_info(shd_mailbox *mailbox,
                                      struct shd_mailbox_info *info);

/* The boxes, index 0 .. boxes_max - 1. 0, SHD_NOTFOUND: nobody's, SHD_INVAL:
 * past the end. Takes no lock. */
struct shd_box_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t dead;        /* 1: its worker is proved dead */
    uint64_t owner;       /* incarnation of its worker */
    uint32_t listening;   /* 0: it only asks */
    uint32_t waiting;
    uint32_t working;
    uint32_t answers;
};
SHD_API SHD_MUST int shd_mailbox_box(shd_mailbox *mailbox, uint32_t index,
                                     struct shd_box_info *info);

/* Message number `at` (from 0) of those that wait in box `index`, which stays.
 * As many of its bytes as fit are copied. SHD_NOTFOUND: there are no more.
 * Takes no lock. */
SHD_API SHD_MUST int shd_mailbox_peek(shd_mailbox *mailbox, uint32_t index,
                                      uint64_t at, void *buf, size_t size,
                                      struct shd_mail *m);

/* ---- locks and semaphores --------------------------------------------- */

/* A LOCK is held by one worker at a time, a SEMAPHORE's permits by as many as
 * there are. What a worker holds is its own until it gives it back or dies: a death is proved,
 * never guessed from a timeout, and then the next in line has it, and is told
 * that its predecessor died. Only who asks for a time to live can lose a permit
 * while alive.
 *   Who waits gets its turn in the order of asking. With each permit comes a
 * *token*, larger than all before it of this object: a store that refuses
 * tokens smaller than the largest it has seen is safe from holders that come
 * too late. It also names the permit: a token is good for one release. A
 * worker is a process: its threads, and coroutines, exclude each other, and who
 * has the token may release. Tokens fit 53 bits for 2^53 / permits
 * acquisitions. */
typedef struct shd_lock shd_lock;

enum { /* struct shd_lock_options.flags */
    SHD_LOCK_CREATE = 1 /* make it if it is not there */
};

struct shd_lock_options {
    uint32_t struct_size; /* sizeof(struct shd_lock_options) */
    uint32_t flags;
    uint32_t permits;     /* of a semaphore, up to 65535; 0: as many as it has,
                             or 1 */
    uint32_t waiters_max; /* create: as many can wait at once; default 4 times
                             the segment's workers_max and at least 64, at most
                             65535 */
};

/* Opens the object of that name and kind, SHD_OBJECT_LOCK or _SEMAPHORE.
 * o NULL: only if it is there. SHD_NOTFOUND. SHD_MISMATCH: another kind, or
 * another number of permits. SHD_NOMEM, SHD_FULL, SHD_NAME. As
 * shd_topic_open. */
SHD_API SHD_MUST int shd_lock_open(shd_segment *segment, const char *name,
                                   uint32_t kind,
                                   const struct shd_lock_options *o,
                                   shd_lock **out);

SHD_API int shd_lock_close(shd_lock *lock);

enum { /* struct shd_grant.former: how the permit's last holder parted */
    SHD_FORMER_RELEASED = 0, /* gave it back, or there was none */
    SHD_FORMER_DIED = 1,     /* what it was working on may be half done */
    SHD_FORMER_EXPIRED = 2   /* its time was up: it may still be at it */
};

struct shd_grant {
    uint64_t token;
    uint32_t former;
    uint32_t reserved;
};

/* Acquires a permit, waiting for wait_ms. ttl_ms 0: for as long as this worker
 * lives; else it can be taken away after that long. SHD_BUSY: not in time.
 * SHD_FULL: waiters_max wait. */
SHD_API SHD_MUST int shd_lock_acquire(shd_lock *lock, int64_t wait_ms,
                                      int64_t ttl_ms, struct shd_grant *grant);

/* Gives it back, to the next in line if there is one. SHD_LOST: this worker
 * does not hold it by that token (any more); nothing was changed. */
SHD_API SHD_MUST int shd_lock_release(shd_lock *lock, uint64_t token);

/* Does this worker still hold it? SHD_OK, and *ttl_ms, if not NULL, gets the
 * ms left, 0: no limit. SHD_LOST. Takes no lock. */
SHD_API SHD_MUST int shd_lock_check(shd_lock *lock, uint64_t token,
                                    int64_t *ttl_ms);

/* From now on it can be taken away after ttl_ms; 0: not while this worker
 * lives. SHD_LOST. */
SHD_API SHD_MUST int shd_lock_extend(shd_lock *lock, uint64_t token,
                                     int64_t ttl_ms);

/* For event loops: acquires without waiting, or gets in line. 0: *grant.
 * 1: in line; *ticket names the place, and the worker's bell (shd_worker_fd)
 * rings when it is granted. A permit that is granted is held, whether it was
 * looked for or not: so each ticket wants shd_lock_poll until it says 0, or
 * shd_lock_cancel. Errors as shd_lock_acquire. */
SHD_API SHD_MUST int shd_lock_request(shd_lock *lock, int64_t ttl_ms,
                                      struct shd_grant *grant,
                                      uint64_t *ticket);

/* Has it been granted? 0: yes, *grant. 1: not yet. SHD_LOST: no such ticket of
 * this worker. Takes back what the dead hold, so
 * call it now and then, say every 250 ms, also when no bell rings. */
SHD_API SHD_MUST int shd_lock_poll(shd_lock *lock, uint64_t ticket,
                                   struct shd_grant *grant);

/* Leaves the line. 1: done. 0: it was granted in the meantime, *grant. */
SHD_API SHD_MUST int shd_lock_cancel(shd_lock *lock, uint64_t ticket,
                                     struct shd_grant *grant);

struct shd_lock_info {
    uint32_t struct_size; /* set by the caller */
    uint32_t kind;        /* SHD_OBJECT_LOCK, ... */
    uint64_t generation;
    uint32_t permits;
    uint32_t taken;
    uint32_t waiting;     /* in line */
    uint32_t waiters_max;
    uint64_t grants;      /* permits given out so far */
    uint64_t deaths;      /* taken back from the dead */
    uint64_t expirations; /* taken away because their time was up */
    char name[64];
};
SHD_API SHD_MUST int shd_lock_info(shd_lock *lock,
                                   struct shd_lock_info *info);

/* The holder of permit number index, 0 .. permits - 1. 0, SHD_NOTFOUND: it is
 * free, SHD_INVAL: past the end. */
struct shd_holder {
    uint32_t struct_size; /* set by the caller */
    uint32_t dead;        /* 1: it is proved dead; nobody has wanted it since */
    uint64_t owner;       /* incarnation */
    uint64_t token;
    int64_t held_ms;
    int64_t ttl_ms;       /* left; 0: no limit; negative: time is up */
};
SHD_API SHD_MUST int shd_lock_holder(shd_lock *lock, uint32_t index,
                                     struct shd_holder *holder);

/* ---- leaders ----------------------------------------------------------- */

/* A LEADER is the one worker that does what only one may do: a timer, a
 * clean-up. Workers stand for it; the first leads until it resigns, dies (which
 * is proved, never guessed from a timeout), or drains (SHD_PHASE_DRAINING) and
 * looks while another stands: so in a rolling restart the new generation takes
 * over, and while nobody else is there an old one goes on. A worker that drains
 * does not become leader. Whoever stood first is next, and leads at once,
 * whether it has looked or not: there is no time without a leader while one of
 * those that stand lives, and never are there two. What is done by a leader
 * that was stopped for long can be told by its token, which only grows (LOCKS).
 *   shdict locks shows leaders; so do shd_lock_info and shd_lock_holder, with
 * the handle that shd_lock_open gives for SHD_OBJECT_LEADER without options. */
typedef struct shd_leader shd_leader;

/* As shd_lock_open; permits is 0 or 1. */
SHD_API SHD_MUST int shd_leader_open(shd_segment *segment, const char *name,
                                     const struct shd_lock_options *o,
                                     shd_leader **out);

/* Resigns nothing. */
SHD_API int shd_leader_close(shd_leader *leader);

/* Does this worker lead? It stands from the first look on. 0: yes, and *grant
 * has the token, which stays the same as long as it leads. 1: not within
 * wait_ms; the worker's bell (shd_worker_fd) rings when it does. A worker that
 * drains does not wait. SHD_FULL: waiters_max stand. Looking hands over and
 * takes over as said above, so a leader looks before each piece of its work,
 * and who stands, say, every 250 ms, also when no bell rings. A leader's look
 * takes no lock. */
SHD_API SHD_MUST int shd_leader_look(shd_leader *leader, int64_t wait_ms,
                                     struct shd_grant *grant);

/* Leads and stands no more, until the next look. Nothing if it did neither. */
SHD_API SHD_MUST int shd_leader_resign(shd_leader *leader);

#ifdef __cplusplus
}
#endif
#endif
