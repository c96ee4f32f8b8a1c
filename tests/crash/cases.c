/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/cases.h"

#define S CASE_STEPS
#define N CASE_NEST
#define SAME CASE_SAME

/* clang-format off */
const struct crash_case CASES[] = {
    /* name, KiB, shards, hint, flags, from, to, setup, operation */
    /* one key */
    {"set into an empty dict", 64, 0, 0, N, 0, 0, "", "set a 10"},
    {"set an empty value", 64, 0, 0, 0, 0, 0, "", "set a 0"},
    {"set with expiry", 64, 0, 0, 0, 0, 0, "", "set a 10 5000"},
    {"set in place", 64, 0, 0, N, 0, 0, "set a 10", "set a 10"},
    {"set over one that expires", 64, 0, 0, 0, 0, 0, "set a 10 5000", "set a 10"},
    {"set over an expired one", 64, 0, 0, 0, 0, 0, "set a 10 5;advance 10", "set a 10"},
    {"grow # times 40 bytes", 64, 0, 0, 0, 1, 12, "set a 10", "set a #00"},
    {"shrink from # hundred", 64, 0, 0, 0, 1, 12, "set a #00", "set a 10"},
    {"string to number", 64, 0, 0, 0, 0, 0, "set a 10", "num a 3"},
    {"number to string", 64, 0, 0, 0, 0, 0, "num a 3", "set a 100"},
    {"number to number", 64, 0, 0, 0, 0, 0, "num a 3", "num a 4"},
    {"list to string", 64, 0, 0, N, 0, 0, "rpush a 10;rpush a 20;rpush a 1000", "set a 10"},
    {"long list to string", 64, 0, 0, 0, 0, 0, "rpush a 1;rpush a 2;rpush a 3;rpush a 4;rpush a 5;rpush a 6;rpush a 7;rpush a 8;rpush a 9;rpush a 10;rpush a 11;rpush a 12", "set a 10"},
    {"set among others", 64, 0, 0, 0, 0, 0, "fill k 100 20", "set a 10"},
    {"add", 64, 0, 0, 0, 0, 0, "fill k 10 20", "add a 10"},
    {"add over an expired one", 64, 0, 0, 0, 0, 0, "set a 500 5;advance 10", "add a 10"},
    {"add refused", 64, 0, 0, SAME, 0, 0, "set a 10", "?add a 10"},
    {"replace", 64, 0, 0, 0, 0, 0, "set a 10", "replace a 300"},
    {"replace refused", 64, 0, 0, SAME, 0, 0, "", "?replace a 10"},
    {"safe set", 64, 0, 0, 0, 0, 0, "fill k 10 20", "safe a 10"},
    {"safe set over the old", 64, 0, 0, 0, 0, 0, "fill k 10 20", "safe k3 700"},
    {"delete the only one", 64, 0, 0, N, 0, 0, "set a 10", "del a"},
    {"delete one of many", 64, 0, 0, 0, 0, 0, "fill k 100 20", "del k50"},
    {"delete a list", 64, 0, 0, 0, 0, 0, "rpush a 10;rpush a 20;lnum a 4", "del a"},
    {"delete nothing", 64, 0, 0, SAME, 0, 0, "fill k 10 20", "?del a"},
    {"delete an expired one", 64, 0, 0, 0, 0, 0, "fill k 9 9;set a 10 5;advance 10", "?del a"},
    {"incr", 64, 0, 0, N, 0, 0, "num a 5", "incr a 3"},
    {"incr with init", 64, 0, 0, 0, 0, 0, "", "init a 3"},
    {"incr with init over an expired string", 64, 0, 0, 0, 0, 0, "set a 900 5;advance 10", "init a 3"},
    {"incr refused", 64, 0, 0, SAME, 0, 0, "set a 10", "?incr a 3"},
    {"expire", 64, 0, 0, N, 0, 0, "set a 10", "expire a 1000"},
    {"expire again", 64, 0, 0, 0, 0, 0, "set a 10 500;fill k 9 9 300", "expire a 1000"},
    {"expire sooner", 64, 0, 0, 0, 0, 0, "set a 10 500;fill k 9 9 300", "expire a 100"},
    {"expire never", 64, 0, 0, 0, 0, 0, "set a 10 500", "expire a 0"},
    {"expire revives", 64, 0, 0, 0, 0, 0, "set a 10 5;advance 10", "expire a 100"},
    {"get", 64, 0, 0, SAME, 0, 0, "fill k 10 20", "get k5"},

    /* chains */
    {"set a chain of # KiB", 64, 0, 0, 0, 3, 9, "", "set a #000"},
    {"chain over small", 64, 0, 0, N, 0, 0, "set a 10", "set a 9000"},
    {"small over chain", 64, 0, 0, N, 0, 0, "set a 9000", "set a 10"},
    {"chain over chain", 64, 0, 0, 0, 0, 0, "set a 9000", "set a 9000"},
    {"longer chain", 64, 0, 0, 0, 0, 0, "set a 9000", "set a 15000"},
    {"shorter chain", 64, 0, 0, 0, 0, 0, "set a 15000", "set a 9000"},
    {"chain to number", 64, 0, 0, 0, 0, 0, "set a 15000", "num a 1"},
    {"delete a chain", 64, 0, 0, N, 0, 0, "set a 15000", "del a"},
    {"expire a chain", 64, 0, 0, 0, 0, 0, "set a 15000", "expire a 10"},
    {"chain into a list", 64, 0, 0, 0, 0, 0, "rpush a 10", "rpush a 9000"},
    {"chain out of a list", 64, 0, 0, 0, 0, 0, "rpush a 10;rpush a 9000", "rpop a"},
    {"long chain", 256, 0, 0, 0, 0, 0, "set b 100", "set a 100000"},
    {"delete a long chain", 256, 0, 0, 0, 0, 0, "set a 100000", "del a"},
    {"set over a long chain", 256, 0, 0, 0, 0, 0, "set a 100000", "set a 5"},

    /* one tree: rotations and recolourings of all shapes */
    {"tree: insert after #", 64, 0, 1, 0, 0, 40, "fill k # 20", "set new# 20"},
    {"tree: delete number #", 64, 0, 1, 0, 0, 39, "fill k 40 20", "del k#"},
    {"tree: delete from few, number #", 64, 0, 1, 0, 0, 8, "fill k 9 20", "del k#"},
    {"tree: delete after thinning, number #", 64, 0, 1, 0, 10, 29, "fill k 40 20;thin k 10 1;thin k3 10 1", "?del k#"},
    {"tree: another cell for number #", 64, 0, 1, 0, 0, 12, "fill k 13 20", "set k# 400"},
    {"tree: insert, and every recovery", 64, 0, 1, N, 0, 0, "fill k 25 20", "set new 20"},
    {"tree: delete, and every recovery", 64, 0, 1, N, 0, 0, "fill k 25 20", "del k7"},

    /* lists */
    {"push to nothing", 64, 0, 0, N, 0, 0, "", "lpush a 10"},
    {"push a number to nothing", 64, 0, 0, 0, 0, 0, "", "lnum a 10"},
    {"push left", 64, 0, 0, N, 0, 0, "lpush a 10;lpush a 10", "lpush a 10"},
    {"push right", 64, 0, 0, 0, 0, 0, "lpush a 10;lpush a 10", "rpush a 10"},
    {"push over an expired list", 64, 0, 0, 0, 0, 0, "lpush a 10;lpush a 9;expire a 5;advance 10", "rpush a 10"},
    {"push over an expired string", 64, 0, 0, 0, 0, 0, "set a 900 5;advance 10", "rpush a 10"},
    {"push refused", 64, 0, 0, SAME, 0, 0, "set a 9", "?rpush a 10"},
    {"pop left of #", 64, 0, 0, 0, 1, 1, "rpush a 1;rpush a 2", "lpop a"},
    {"pop right", 64, 0, 0, N, 0, 0, "rpush a 1;rpush a 2;rpush a 3", "rpop a"},
    {"pop the last", 64, 0, 0, N, 0, 0, "rpush a 10", "lpop a"},
    {"pop the last number", 64, 0, 0, 0, 0, 0, "fill k 20 20;lnum a 1", "lpop a"},
    {"pop nothing", 64, 0, 0, SAME, 0, 0, "set b 10", "?lpop a"},
    {"expire a list", 64, 0, 0, 0, 0, 0, "rpush a 10;rpush a 11", "expire a 500"},

    /* pages: turning over, compaction, eviction */
    {"page: first cell after # others", 64, 0, 0, 0, 1, 4, "fill k 1# 300", "set a 310"},
    {"page: last cell of a page", 64, 0, 0, 0, 0, 0, "set a 1200;set b 100", "del a"},
    {"page: free the only page", 64, 0, 0, N, 0, 0, "set a 1200", "del a"},
    {"page: page of another class", 64, 0, 0, 0, 0, 0, "set a 1200;del a", "set b 60"},
    {"evict for small", 64, 0, 0, S, 0, 0, "fill k 900 20", "set a 20"},
    {"evict for small, number #", 16, 0, 0, S, 0, 5, "fill k 300 20", "set a# 2#"},
    {"evict for medium", 64, 0, 0, S, 0, 0, "fill k 900 20", "set a 900"},
    {"evict marked ones", 16, 0, 0, S, 0, 0, "fill k 300 20;hit k 300", "set a 20"},
    {"evict for a chain", 64, 0, 0, S, 0, 0, "fill k 900 20", "set a 9000"},
    {"evict chains", 64, 0, 0, S, 0, 0, "fill k 20 5000", "set a 5000"},
    {"evict chains for small", 64, 0, 0, S, 0, 0, "fill k 20 5000", "set a 50"},
    {"evict lists", 16, 0, 0, S, 0, 0, "rpush a 900;rpush a 900;rpush a 900;rpush b 900;fill k 60 100", "set c 1000"},
    {"evict everything", 16, 0, 0, S, 0, 0, "fill k 300 20", "set a 5000"},
    {"evict and replace", 16, 0, 0, S, 0, 0, "fill k 300 20;set a 10", "set a 2000"},
    {"evict the expired first", 16, 0, 0, S, 0, 0, "fill e 30 20 5;fill k 300 20;advance 10", "set a 900"},
    {"evict the expired for safe", 16, 0, 0, S, 0, 0, "fill e 60 60 5;advance 10;?safe x 900;?safe y 900;?safe z 900;?safe u 900;?safe v 900", "?safe a 900"},
    {"init evicts", 16, 0, 0, S, 0, 0, "fill k 300 20", "init a 3"},
    {"compact for safe", 32, 0, 0, S, 0, 0, "fill k 260 60;thin k 260 2", "?safe a 1500"},
    {"compact for medium", 32, 0, 0, S, 0, 0, "fill k 260 60;thin k 260 2", "set a 1500"},
    {"compact lists", 32, 0, 0, S, 0, 0, "rpush l 50;fill k 80 60;rpush l 51;fill m 80 60;rpush l 52;rpush l 53;fill o 90 60;thin k 80 1;thin m 80 2", "set a 1500"},
    {"compact chains", 32, 0, 0, S, 0, 0, "set a 5000;fill k 100 60;set b 5000;thin k 100 2", "set c 5000"},
    {"push into a full dict", 16, 0, 0, S | SAME, 0, 0, "fill k 300 20", "?rpush a 1000"},
    {"push compacts", 32, 0, 0, S, 0, 0, "fill k 260 60;thin k 260 2;rpush l 10", "?rpush l 1500"},
    {"safe refused", 16, 0, 0, S | SAME, 0, 0, "fill k 300 20;set a 10", "?safe a 2000"},
    {"evict in 8 KiB", 8, 0, 0, S, 0, 0, "fill k 90 10", "set a 600"},
    {"evict in 8 KiB, every recovery", 8, 0, 0, S | N, 0, 0, "fill k 90 10", "set a 10"},
    {"push to nothing in 8 KiB", 8, 0, 0, 0, 0, 0, "", "rpush l 10"},
    {"push in 8 KiB, all in one page", 8, 0, 0, 0, 0, 0, "rpush l 500", "rpush l 10"},
    {"a small one into a larger cell", 8, 0, 0, 0, 0, 0, "set a 500", "set b 10"},
    {"evict a larger cell for a small one", 8, 0, 0, S, 0, 0, "fill k 7 500", "set b 10"},
    {"safe into a larger cell", 64, 0, 0, 0, 0, 0, "fill k 100 500;del k5", "?safe a 10"},
    {"compact in place of evicting", 32, 0, 0, S, 0, 0, "fill k 260 60;thin k 260 2;fill m 60 20", "set a 1500"},
    {"evict lists for a page", 16, 0, 0, S, 0, 0, "rpush a 20;rpush b 20;rpush c 20;rpush a 20;rpush b 20;fill k 60 100;rpush d 20", "set e 3000"},

    /* shards */
    {"page from another shard", 64, 4, 0, S, 0, 0, "fill k 900 20", "set a 900"},
    {"chain from other shards", 128, 4, 0, S, 0, 0, "fill k 1500 20", "set a 30000"},
    {"small in shard of key #", 64, 4, 0, S, 0, 4, "fill k 900 20", "set a# 20"},
    {"delete in shards", 64, 4, 0, 0, 0, 0, "fill k 90 20", "del k5"},

    /* sweeps */
    {"flush_all", 64, 0, 0, S, 0, 0, "fill k 30 20;rpush l 5;set c 9000", "flush"},
    {"flush_all of shards", 64, 4, 0, S, 0, 0, "fill k 30 20", "flush"},
    {"flush_expired", 64, 0, 0, S, 0, 0, "fill k 30 20 5;fill m 9 9;rpush l 5;set c 9000 5;advance 10", "sweep 0"},
    {"flush_expired some", 64, 0, 0, S, 0, 0, "fill k 30 20 5;fill m 9 9;advance 10", "sweep 3"},
    {"flush_expired lists and chains", 64, 0, 0, S, 0, 0, "rpush l 5;rpush l 9;rpush l 5000;set c 9000;flush", "sweep 0"},

    /* the catalogue */
    {"open a new dict", 64, 0, 0, 0, 0, 0, "set a 10", "open other 16384"},
    {"open one that is there", 64, 0, 0, SAME, 0, 0, "open other 16384", "open other 16384"},
    {"open, and every recovery", 16, 0, 0, N, 0, 0, "", "open other 8192"},
    {"destroy a dict", 64, 0, 0, 0, 0, 0, "open other 16384", "destroy other"},
    {"destroy, and every recovery", 16, 0, 0, N, 0, 0, "open other 8192", "destroy other"},
    {"open in the place of a destroyed one", 64, 0, 0, 0, 0, 0, "open other 16384;destroy other", "open next 8192"},

    /* workers */
    {"join", 64, 0, 0, SAME | N, 0, 0, "", "join"},
    {"leave", 64, 0, 0, SAME | N, 0, 0, "", "leave"},
    {"reap one that idled", 64, 0, 0, SAME | N, 0, 0, "dead 1 set a 10", "reap"},
    {"reap one that was changing, store #", 64, 0, 0, SAME, 3, 30, "set a 10;dead # set a 300", "reap"},
    {"reap two", 64, 0, 0, SAME, 0, 0, "dead 9 set a 10;dead 15 set b 10", "reap"},
    {"go on where one died, store #", 64, 0, 0, 0, 3, 30, "set a 10;fill k 9 30;dead # set a 300", "set b 20"},
    {"go on where one died evicting, store #0", 16, 0, 0, S, 1, 12, "fill k 300 20;dead #0 set a 900", "set b 900"},
    {"go on where one died building a chain, store #0", 64, 0, 0, 0, 1, 40, "set a 10;dead #0 set c 15000", "set b 20"},
    {"pop where one died pushing, store #", 64, 0, 0, 0, 3, 20, "rpush l 10;rpush l 20;dead # rpush l 30", "lpop l"},
};
/* clang-format on */

const size_t CASE_COUNT = sizeof(CASES) / sizeof(CASES[0]);
