/*
 * Child processes: what spawning (spawn.c), the handle (process.c) and talking to it (communicate.c) have in common.
 */
#ifndef WEFT_IO_PROCESS_H
#define WEFT_IO_PROCESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/process.h>

#include "runtime/lock.h"

enum weft__process_state { WEFT__PROCESS_RUNS = 0, WEFT__PROCESS_ENDED, WEFT__PROCESS_LOST };

struct weft_process {
    /* Fixed once it is spawned. */
    pid_t pid;
    int pidfd; /* -1: the kernel has none */
    bool leads_group;
    uint32_t forks; /* weft__forks at that time: elsewhere it is not the caller's child */

    weft__lock lock; /* held by who asks for the status, uses an end for communicate or takes one, and, without a
                      * pidfd, by who sends a signal */
    _Atomic uint32_t state;
    int status;                  /* written before `state` */
    _Atomic uint32_t references; /* the handle's own, and one for each call that waits */
    _Atomic int ends[3];         /* the parent's ends of the pipes; -1: none */
};

/* Everything about a child that is to be, in the caller's frame. Called on a pool thread or one outside the runtime. */
int weft__process_launch(const weft_process_options *options, const char *const *argv, weft_process *process);

/* Pairs of a call that waits: the handle's memory and descriptors stay until it is over. */
void weft__process_hold(weft_process *process);
void weft__process_release(weft_process *process);

/* Wait until it has ended. Suspends. */
int weft__process_await(weft_process *process);

/* What weft_process_wait returns for one that has ended. */
int weft__process_outcome(const weft_process *process, int *status);

/* Close an end. 0 or -EBADF. */
int weft__process_close_end(weft_process *process, int number);

/* Act as on a kernel without pidfds. For tests. */
extern _Atomic bool weft__process_without_pidfd __attribute__((visibility("hidden")));

#endif
