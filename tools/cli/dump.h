/* SPDX-License-Identifier: BSD-2-Clause */
/* dump.h - the text that dump writes and load reads.
 *
 * One line each, fields separated by tabs, strings and keys as escaped text
 * (a key's or an element's first '#' as \x23):
 *   #shdict dump 1
 *   #dict NAME CAPACITY MAX SHARDS    what follows is of this dict
 *   #key type flags ttl age value     names the columns
 *   KEY TYPE FLAGS TTL AGE VALUE      ttl in seconds, - for ever; of a list the
 *                                     value is its number of elements, and
 *      <tab>TYPE VALUE                each follows
 *   #end N                            N entries in all: nothing is cut off
 * Lines that begin with '#' and another word are for later versions: they are
 * passed over.
 */
#ifndef SHDICT_CLI_DUMP_H
#define SHDICT_CLI_DUMP_H

#define DUMP_MAGIC "#shdict dump "
#define DUMP_VERSION 1

#endif
