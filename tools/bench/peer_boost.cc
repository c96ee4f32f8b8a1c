/* SPDX-License-Identifier: BSD-2-Clause */
/* boost::unordered_map in a boost::interprocess mapped file, under one lock:
 * its interprocess_mutex, or a robust process-shared pthread mutex. */
#include "load.h"

#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <string>

#include <boost/functional/hash.hpp>
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/containers/string.hpp>
#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/unordered_map.hpp>

namespace bi = boost::interprocess;
typedef bi::managed_mapped_file file;
typedef bi::allocator<char, file::segment_manager> chars;
typedef bi::basic_string<char, std::char_traits<char>, chars> text;
typedef bi::allocator<std::pair<const text, text>, file::segment_manager>
    pairs;
typedef boost::unordered_map<text, text, boost::hash<text>,
                             std::equal_to<text>, pairs>
    table;

static file *mapped;
static table *map;
static bi::interprocess_mutex *plain;
static pthread_mutex_t *robust;
static bool use_robust;
static thread_local text *probe;

static void lock()
{
    if (!use_robust) {
        plain->lock();
    } else if (pthread_mutex_lock(robust) == EOWNERDEAD) {
        pthread_mutex_consistent(robust); /* and the map is as it was left */
    }
}

static void unlock()
{
    if (use_robust)
        pthread_mutex_unlock(robust);
    else
        plain->unlock();
}

static int make(const char *dir, uint64_t keys, size_t value, int full)
{
    std::string path = std::string(dir) + "/boost";
    pthread_mutexattr_t a;

    if (full)
        return -1;
    mapped = new file(bi::create_only, path.c_str(),
                      (64ull << 20) + keys * (value + 320));
    map = mapped->construct<table>("map")(
        (size_t)keys, boost::hash<text>(), std::equal_to<text>(),
        mapped->get_allocator<std::pair<const text, text>>());
    plain = mapped->construct<bi::interprocess_mutex>("plain")();
    robust = mapped->construct<pthread_mutex_t>("robust")();
    return pthread_mutexattr_init(&a) ||
                   pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) ||
                   pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) ||
                   pthread_mutex_init(robust, &a)
               ? -1
               : 0;
}

static int make_robust(const char *dir, uint64_t keys, size_t value, int full)
{
    use_robust = true;
    return make(dir, keys, value, full);
}

/* A key to look up with has to be in the file too: kept, and long enough. */
static int attach()
{
    lock();
    probe = mapped->construct<text>(bi::anonymous_instance)(
        mapped->get_allocator<char>());
    probe->reserve(128);
    unlock();
    return 0;
}

static int get(const char *key, size_t len, char *buf, size_t size)
{
    int found = 0;

    probe->assign(key, len);
    lock();
    table::const_iterator i = map->find(*probe);
    if (i != map->end()) {
        size_t n = i->second.size();
        memcpy(buf, i->second.data(), n < size ? n : size);
        found = 1;
    }
    unlock();
    return found;
}

static int put(const char *key, size_t len, const char *value, size_t size,
               bool replace)
{
    int stored = 1;

    probe->assign(key, len);
    lock();
    table::iterator i = map->find(*probe);
    if (i == map->end())
        map->emplace(*probe,
                     text(value, size, mapped->get_allocator<char>()));
    else if (replace)
        i->second.assign(value, size);
    else
        stored = 0;
    unlock();
    return stored;
}

static int set(const char *key, size_t len, const char *value, size_t size)
{
    return put(key, len, value, size, true);
}

static int add(const char *key, size_t len, const char *value, size_t size)
{
    return put(key, len, value, size, false);
}

static int del(const char *key, size_t len)
{
    probe->assign(key, len);
    lock();
    int n = (int)map->erase(*probe);
    unlock();
    return n;
}

static int incr(const char *key, size_t len)
{
    double n = 0;

    probe->assign(key, len);
    lock();
    table::iterator i = map->find(*probe);
    if (i == map->end())
        i = map->emplace(*probe, text((char *)&n, sizeof(n),
                                      mapped->get_allocator<char>()))
                .first;
    memcpy(&n, i->second.data(), sizeof(n));
    n++;
    memcpy(&i->second[0], &n, sizeof(n));
    unlock();
    return 1;
}

static peer boost_peer(const char *name,
                       int (*maker)(const char *, uint64_t, size_t, int))
{
    peer p = peer();

    p.name = name;
    p.make = maker;
    p.attach = attach;
    p.get = get;
    p.set = set;
    p.add = add;
    p.del = del;
    p.incr = incr;
    p.threads = 1;
    return p;
}

extern const peer peer_boost = boost_peer("boost", make);
extern const peer peer_boost_robust = boost_peer("boost-robust", make_robust);
