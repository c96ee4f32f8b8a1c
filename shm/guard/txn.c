/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state word of a guard is all that recovery believes:
 *
 *   undo > 0 or claims > 0   the transaction had not committed: put the words
 *                            back, newest first, forget them, then give back
 *                            the claims
 *   releases > 0             it had: do the releases again
 *   0                        nothing to do
 *
 * Commit is the store that turns the first into the second or the third.
 *
 * A claim is logged before the owner word is swapped, so recovery may find a
 * claim that never succeeded; then the owner word is not ours and is left
 * alone. Nobody else could have made it ours: only the holder of this guard
 * writes this guard's value into an owner word.
 *
 * Giving back sets the bit in the map first and the owner word to 0 last: cut
 * off between the two, the owner word still says that the work is ours to
 * finish. The other way round the bit would be lost.
 */
#include "shm/guard/txn.h"

static uint64_t claim_tag(const struct guard_claim *c, uint64_t id)
{
    return txn_tag(c->owner_at ^ (uint64_t)c->owner << 36,
                   c->map_at ^ (uint64_t)c->bit << 40, txn_salt(id));
}

static void claim_fill(const struct txn *t, struct guard_claim *c,
                       const uint32_t *owner, uint32_t value,
                       const uint64_t *map, uint32_t bit)
{
    c->owner_at = segment_offset(t->segment, owner);
    c->map_at = segment_offset(t->segment, map);
    c->owner = value;
    c->bit = bit;
    c->tag = claim_tag(c, t->id);
}

static bool claim_sound(const struct segment *s, const struct guard_claim *c,
                        uint64_t id)
{
    return c->tag == claim_tag(c, id) && c->bit <= 63 && c->owner != 0 &&
           c->owner_at % 4 == 0 && c->map_at % 8 == 0 &&
           segment_at(s, c->owner_at, 4) != NULL &&
           segment_at(s, c->map_at, 8) != NULL;
}

/* False: what the log says is not what a transaction of that id wrote. Judged
 * and done from one private copy, for the log may be overwritten meanwhile. */
static bool claim_give_back(const struct segment *s,
                            const struct guard_claim *logged, uint64_t id)
{
    const struct guard_claim c = {
        .owner_at = atomic_load64(&logged->owner_at),
        .map_at = atomic_load64(&logged->map_at),
        .owner = atomic_load32(&logged->owner),
        .bit = atomic_load32(&logged->bit),
        .tag = atomic_load64(&logged->tag),
    };
    uint32_t *owner;

    if (!claim_sound(s, &c, id))
        return false;
    owner = segment_at(s, c.owner_at, sizeof(*owner));
    if (atomic_load32(owner) != c.owner)
        return true;
    atomic_or64(segment_at(s, c.map_at, 8), 1ull << c.bit);
    atomic_compiler_barrier();
    atomic_store32_release(owner, 0);
    return true;
}

bool txn_give_back(const struct segment *s, const struct guard_claim *c,
                   uint64_t id)
{
    return claim_give_back(s, c, id);
}

/* The log holds what no transaction wrote: some of it could not be done. */
static void damaged(struct guard *g)
{
    atomic_store64(&g->damaged, 1);
}

bool txn_claim(struct txn *t, uint32_t *owner, uint32_t value, uint64_t *map,
               uint32_t bit)
{
    uint32_t claims = txn_claims(t);

    assert(claims < GUARD_CLAIMS_MAX && value != 0 && bit < 64);
    claim_fill(t, &t->guard->claims[claims], owner, value, map, bit);
    atomic_compiler_barrier();
    t->state = txn_state(txn_words(t), claims + 1, 0);
    atomic_store64(&t->guard->state, t->state);
    atomic_compiler_barrier();
    if (!atomic_cas32(owner, 0, value)) {
        t->state = txn_state(txn_words(t), claims, 0);
        atomic_store64(&t->guard->state, t->state);
        return false;
    }
    atomic_and64(map, ~(1ull << bit));
    return true;
}

void txn_release(struct txn *t, uint32_t *owner, uint32_t value, uint64_t *map,
                 uint32_t bit)
{
    assert(t->releases < GUARD_RELEASES_MAX && value != 0 && bit < 64);
    claim_fill(t, &t->guard->releases[t->releases++], owner, value, map, bit);
}

/* The releases of a committed transaction, then the end of it. */
static void finish(const struct segment *s, struct guard *g, uint32_t releases,
                   uint64_t id)
{
    for (uint32_t i = 0; i < releases; i++) {
        if (!claim_give_back(s, &g->releases[i], id))
            damaged(g);
    }
    atomic_compiler_barrier();
    if (releases > 0)
        atomic_store64(&g->state, 0);
    atomic_compiler_barrier();
    atomic_store64_release(&g->seq, id + 1);
}

void txn_finish(const struct segment *s, struct guard *g, uint32_t releases,
                uint64_t id)
{
    finish(s, g, releases, id);
}

/* The word an entry of the log is about, NULL if no transaction of that id
 * wrote it. */
static uint64_t *logged_word(const struct segment *s, uint64_t where,
                             uint64_t old, uint64_t id)
{
    uint64_t at = where & TXN_WHERE_MASK;

    if ((where & ~TXN_WHERE_MASK) != txn_tag(at, old, txn_salt(id)))
        return NULL;
    return segment_at(s, at * 8, 8);
}

static void undo(const struct segment *s, struct guard *g, uint32_t words,
                 uint32_t claims, uint64_t id)
{
    while (words-- > 0) {
        const struct guard_undo *u = &g->undo[words];
        uint64_t old = atomic_load64(&u->old);
        uint64_t *p = logged_word(s, atomic_load64(&u->where), old, id);

        if (p != NULL)
            atomic_store64(p, old);
        else
            damaged(g);
        atomic_compiler_barrier();
    }
    /* From here on another guard may own what was claimed, and words of it
     * that the log has: they must never be put back a second time. */
    atomic_store64(&g->state, txn_state(0, claims, 0));
    atomic_compiler_barrier();
    while (claims-- > 0)
        if (!claim_give_back(s, &g->claims[claims], id))
            damaged(g);
    atomic_compiler_barrier();
    atomic_store64(&g->state, 0);
    atomic_compiler_barrier();
}

void txn_abort(struct txn *t)
{
    undo(t->segment, t->guard, txn_words(t), txn_claims(t), t->id);
    atomic_store64_release(&t->guard->seq, t->id + 1);
    t->guard = NULL;
}

static bool claims_sound(const struct segment *s, const struct guard_claim *c,
                         uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!claim_sound(s, &c[i], id))
            return false;
    }
    return true;
}

static bool log_sound(const struct segment *s, const struct guard *g,
                      uint32_t words, uint64_t id)
{
    for (uint32_t i = 0; i < words; i++) {
        const struct guard_undo *u = &g->undo[i];

        if (logged_word(s, u->where, u->old, id) == NULL)
            return false;
    }
    return true;
}

bool txn_log_sound(const struct segment *s, const struct guard *g,
                   uint64_t state, uint64_t seq)
{
    uint32_t words = state & 0xffff;
    uint32_t claims = state >> 16 & 0xffff;
    uint32_t releases = state >> 32 & 0xffff;

    return words <= GUARD_UNDO_MAX && claims <= GUARD_CLAIMS_MAX &&
           releases <= GUARD_RELEASES_MAX && state >> 48 == 0 &&
           (releases == 0 || (words == 0 && claims == 0)) &&
           (state == 0 || (seq & 1) != 0) && log_sound(s, g, words, seq) &&
           claims_sound(s, g->claims, claims, seq) &&
           claims_sound(s, g->releases, releases, seq);
}

int txn_recover(const struct segment *s, struct guard *g)
{
    uint64_t state = atomic_load64(&g->state);
    uint64_t seq = atomic_load64(&g->seq);
    uint32_t words = state & 0xffff;
    uint32_t claims = state >> 16 & 0xffff;
    uint32_t releases = state >> 32 & 0xffff;

    if (!txn_log_sound(s, g, state, seq))
        return SHD_CORRUPT;
    if ((seq & 1) == 0)
        return SHD_OK;
    if (words > 0 || claims > 0)
        undo(s, g, words, claims, seq);
    /* Forward, never back: a reader that saw the old even value must not
     * find it again. */
    finish(s, g, releases, seq);
    return SHD_OK;
}
