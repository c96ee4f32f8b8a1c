/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard.pml - the guard's protocol for SPIN: the robust lock with its futex
 * word, the undo log, the sequence counter, recovery, reap and supervisor,
 * with a death at any step of anybody.
 *
 * WHAT IS MODELLED
 *   the lock   glibc's robust mutex as it is written: list_op_pending, the
 *              compare-and-swap on the word, FUTEX_WAITERS set before the
 *              wait, the wake-up of one after the unlock
 *   the kernel at a death: marks the word of a lock on the dead thread's list
 *              (or pending) with OWNER_DIED, and wakes one waiter; or, when
 *              it has LOST the list (fact 9), nothing at all
 *   a kill     comes between any two steps, also of who waits, of who has
 *              been woken and not yet run, of who recovers, of the supervisor
 *   a slice    of a timed wait may run out at any time (EARLY times for each
 *              thread), and does when nothing else can move: then a wake-up
 *              was lost
 * WHAT IS NOT  the order of memory between processors (SPIN's memory is
 *              sequentially consistent), and glibc's own mistakes.
 *
 * An operation adds 1 to each of two words, x twice over, so that the order
 * of undoing matters. PLANT_... makes one mistake; run says what must catch
 * it.
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef OPS
#define OPS 1
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef EARLY
#define EARLY 1
#endif

#define SUPERVISOR WORKERS
#define READER (WORKERS + 1)
#define EVERYBODY (WORKERS + 2)
#define NOBODY 15

/* Only a death loses wake-ups; where somebody kicks, not even that. */
#ifdef SUPERVISED
#define LOST_WAKEUPS_MAX 0
#else
#define LOST_WAKEUPS_MAX DEATHS
#endif

/* ---- the guard, in shared memory --------------------------------------- */

byte tid = NOBODY;        /* the lock word: the owner's thread id, */
bool waiters, owner_died; /* and its two flags */
bool inconsistent;        /* glibc's: EOWNERDEAD given, not yet consistent */
bool not_recoverable;

byte x, y;                /* what the lock guards */
bool undo_word_x[3];      /* the log: which word, */
byte undo_old[3];         /* and what was in it */
byte undo_count;          /* the state word */
byte seq;

/* ---- the kernel -------------------------------------------------------- */

bool listed[EVERYBODY];   /* the lock is on this thread's robust list, or its
                             list_op_pending, which closes the gaps */
bool asleep[EVERYBODY];   /* in FUTEX_WAIT */
bool dead[EVERYBODY];
byte deaths;
bool unseen;              /* a pidfd is readable */
byte early;               /* slices that ran out though others could move */

/* ---- what must hold: ghosts, seen by nobody -------------------------- */

byte holder = NOBODY;     /* who believes to have the lock */
byte committed;           /* operations past their commit */
byte returned;            /* operations that have returned */
byte lost_wakeups;        /* slices that had to run out */

inline wake_one() {
    if
    :: asleep[0] -> asleep[0] = false
#if WORKERS > 1
    :: asleep[1] -> asleep[1] = false
#endif
#if WORKERS > 2
    :: asleep[2] -> asleep[2] = false
#endif
    :: asleep[READER] -> asleep[READER] = false
    :: else
    fi
}

inline wake_all() {
    d_step {
        asleep[0] = false;
#if WORKERS > 1
        asleep[1] = false;
#endif
#if WORKERS > 2
        asleep[2] = false;
#endif
        asleep[READER] = false
    }
}

/* SIGKILL and the exit path: nobody sees a part of it. */
inline die(who) {
    asleep[who] = false;
    if
    :: listed[who] && tid == who ->
        if
        :: true ->
            tid = NOBODY;
            owner_died = true;
            if
            :: waiters -> wake_one()
            :: else
            fi
#ifdef LOST
        :: who != SUPERVISOR /* the OOM reaper took the list's head. (The
              next supervisor, which here has the same thread id, has
              another one in life.) */
#endif
        fi
    :: listed[who] && tid == NOBODY && !owner_died && !waiters ->
        wake_one() /* it may have died between unlock and wake-up */
    :: else
    fi;
    if
    :: holder == who -> holder = NOBODY
    :: else
    fi;
    listed[who] = false;
    dead[who] = true;
    unseen = true
}

/* ---- the lock ------------------------------------------------------------ */

/* Takes the word, if it is free. */
inline take(me, sleepers) {
    if
    :: tid == NOBODY && not_recoverable -> got = 3
    :: tid == NOBODY && !not_recoverable ->
        got = (owner_died -> 2 : 1);
        tid = me;
        waiters = sleepers;
        inconsistent = owner_died;
        owner_died = false;
        listed[me] = true;
        /* PROMISE one at a time */
        assert(holder == NOBODY);
        holder = me
    :: else
    fi
}

/* Fact 9: a word that names a thread that is gone. */
inline mark_lost_owner() {
#ifdef PLANT_TRUST_THE_WORD
    skip
#else
    atomic {
        if
        :: tid != NOBODY && dead[tid] ->
            tid = NOBODY;
            owner_died = true;
            wake_all()
        :: else
        fi
    }
#endif
}

/* guard_lock(). got: 1 it is ours, 2 ours from one who died, 3 never again */
inline lock(me) {
    atomic { got = 0; take(me, waiters) }
    do
    :: got != 0 -> break
    :: else ->
        atomic { /* says that somebody sleeps, if it still has to wait */
            take(me, true);
            if
            :: got == 0 -> waiters = true
            :: else
            fi
        }
        if
        :: got != 0
        :: else ->
            atomic { /* FUTEX_WAIT: sleeps only if the word is still so */
                asleep[me] = (tid != NOBODY && waiters)
            }
            if
            :: !asleep[me] /* woken, or never slept */
#ifndef PLANT_UNTIMED_WAIT
            :: atomic { asleep[me] && early < EARLY ->
                asleep[me] = false; /* the slice ran out, */
                early++
               };
               mark_lost_owner()
            :: atomic { asleep[me] && timeout -> /* and nothing else moves */
                asleep[me] = false;
                lost_wakeups++;
                /* PROMISE no wait is longer than what deaths account for */
                assert(lost_wakeups <= LOST_WAKEUPS_MAX)
               };
               mark_lost_owner()
#endif
            fi
        fi
    od;
    /* PROMISE nobody is locked out for ever */
    assert(got != 3);
    if
    :: got == 2 -> recover()
    :: else
    fi;
    got = 0
}

inline unlock(me) {
    atomic { /* the exchange of the word decides */
        holder = NOBODY;
        tid = NOBODY;
        not_recoverable = inconsistent;
        woken = waiters;
        waiters = false
    }
    atomic {
        if
        :: woken -> wake_one()
        :: else
        fi;
        woken = false;
        listed[me] = false
    }
}

/* ---- the log ------------------------------------------------------------ */

inline begin() {
    seq++
}

inline entry(at, is_x) {
    undo_word_x[at] = is_x;
    if
    :: is_x -> undo_old[at] = x
    :: else -> undo_old[at] = y
    fi
}

inline set(is_x, value) {
    if
    :: is_x -> x = value
    :: else -> y = value
    fi
}

/* Each line one step: a death may come after it. */
inline store(is_x, value) {
#ifdef PLANT_STORE_BEFORE_LOG
    atomic { entry(2, is_x); old = undo_old[2]; set(is_x, value) }
    atomic { entry(undo_count, is_x); undo_old[undo_count] = old; old = 0 }
    undo_count++
#else
#ifdef PLANT_COUNT_BEFORE_ENTRY
    undo_count++;
    atomic { entry(undo_count - 1, is_x) }
    atomic { set(is_x, value) }
#else
    atomic { entry(undo_count, is_x) }
#ifndef PLANT_NO_LOG
    undo_count++;
#endif
    atomic { set(is_x, value) }
#endif
#endif
}

inline commit() {
#ifdef PLANT_EVEN_BEFORE_COMMIT
    seq++;
    atomic { undo_count = 0; committed++ }
#else
    atomic { undo_count = 0; committed++ }
    seq++
#endif
}

/* What the next holder, or a reaper, does first. Each step may be its last. */
inline recover() {
#ifndef PLANT_NO_RECOVERY
    if
    :: (seq & 1) == 1 ->
#ifdef PLANT_UNDO_OLDEST_FIRST
        do
        :: n < undo_count ->
            atomic { set(undo_word_x[n], undo_old[n]); n++ }
        :: else -> break
        od;
#else
        n = undo_count;
#ifdef PLANT_FORGET_BEFORE_UNDO
        undo_count = 0;
#endif
        do
        :: n > 0 ->
            atomic { n--; set(undo_word_x[n], undo_old[n]) }
        :: else -> break
        od;
#endif
        atomic { n = 0; undo_count = 0 }
#ifdef PLANT_SEQ_BACK
        seq--
#else
        seq++
#endif
    :: else
    fi
#else
    skip
#endif
#ifndef PLANT_NO_CONSISTENT
    ;
    inconsistent = false
#endif
}

/* PROMISE each operation is wholly done or wholly not: what a holder finds
 * once it has recovered. PROMISE one that had returned is done. */
inline whole() {
    atomic {
        assert(undo_count == 0 && (seq & 1) == 0);
        assert(x == committed && y == committed);
        assert(returned <= committed)
    }
}

/* ---- who there is ------------------------------------------------------- */

proctype worker(byte me) {
    byte got, ops, n, old;
    bool woken;

    {
        do
        :: ops == OPS -> break
        :: else ->
            lock(me);
            whole();
            begin();
            store(true, 9);
            store(false, committed + 1);
            store(true, committed + 1);
            commit();
            unlock(me);
            atomic { returned++; ops++ }
        od
    } unless {
        dead[me]
    }
}

/* guard/reading.h: once without the lock, then with it. */
proctype reader() {
    byte got, n, old, before, rx, ry;
    bool woken;

    {
        before = seq;
        if
        :: (before & 1) == 0 ->
            rx = x;
            ry = y;
            atomic {
                if
#ifdef PLANT_READ_UNCHECKED
                :: true ->
#else
                :: seq == before ->
#endif
                    /* PROMISE a read returns what was there at one time */
                    assert(rx == ry);
                    goto done
                :: seq != before
                fi;
                rx = 0; ry = 0; before = 0
            }
        :: else -> before = 0
        fi;
        lock(READER);
        whole();
        unlock(READER);
done:   skip
    } unless {
        dead[READER]
    }
}

#ifdef SUPERVISED
/* Sees a death, recovers what it held, wakes everybody. If it dies itself,
 * another one starts, and sees all deaths anew. */
proctype supervisor() {
    byte got, n, old;
    bool woken;

end_of_work:
    {
        atomic { unseen -> unseen = false };
        mark_lost_owner();
        if
        :: owner_died ->
            atomic { /* pthread_mutex_trylock */
                if
                :: owner_died -> take(SUPERVISOR, waiters)
                :: else
                fi
            }
            if
            :: got == 2 ->
                got = 0;
                recover();
                whole();
                unlock(SUPERVISOR)
            :: else
            fi
        :: else
        fi;
#ifndef PLANT_NO_KICK
        wake_all();
#endif
        goto end_of_work
    } unless {
        atomic {
            dead[SUPERVISOR] ->
            dead[SUPERVISOR] = false;
            got = 0; n = 0; old = 0; woken = false
        }
    }
    goto end_of_work
}
#endif

/* Kills anybody at any time, or not. */
proctype killer() {
    byte who;

    do
    :: deaths < DEATHS ->
        atomic {
            if
            :: !dead[0] -> who = 0
#if WORKERS > 1
            :: !dead[1] -> who = 1
#endif
#if WORKERS > 2
            :: !dead[2] -> who = 2
#endif
            :: !dead[READER] -> who = READER
#ifdef SUPERVISED
            :: !dead[SUPERVISOR] -> who = SUPERVISOR
#endif
            :: else -> break
            fi;
            deaths++;
            die(who);
            who = 0
        }
    :: break
    od
}

init {
    atomic {
        run worker(0);
#if WORKERS > 1
        run worker(1);
#endif
#if WORKERS > 2
        run worker(2);
#endif
        run reader();
#ifdef SUPERVISED
        run supervisor();
#endif
        run killer()
    }
}
