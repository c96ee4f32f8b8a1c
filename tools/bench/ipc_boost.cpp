// SPDX-License-Identifier: BSD-2-Clause
// boost::interprocess::message_queue behind C functions, for ipc.c.
#include <boost/interprocess/ipc/message_queue.hpp>
#include <new>

#include "tools/bench/ipc_boost.h"

using boost::interprocess::create_only;
using boost::interprocess::message_queue;

extern "C" void *boost_make(const char *name, size_t count, size_t size)
{
    try {
        message_queue::remove(name);
        return new (std::nothrow)
            message_queue(create_only, name, count, size);
    } catch (...) {
        return nullptr;
    }
}

extern "C" int boost_send(void *q, const void *data, size_t len, int wait)
{
    try {
        auto *mq = static_cast<message_queue *>(q);

        if (!wait)
            return mq->try_send(data, len, 0) ? 1 : 0;
        mq->send(data, len, 0);
        return 1;
    } catch (...) {
        return -1;
    }
}

extern "C" int boost_receive(void *q, void *data, size_t size, int wait)
{
    try {
        auto *mq = static_cast<message_queue *>(q);
        message_queue::size_type got = 0;
        unsigned priority = 0;

        if (!wait)
            return mq->try_receive(data, size, got, priority) ? 1 : 0;
        mq->receive(data, size, got, priority);
        return 1;
    } catch (...) {
        return -1;
    }
}

extern "C" void boost_drop(const char *name)
{
    message_queue::remove(name);
}
