/*
 * Configuration inside the library: what is in force, and where each value came from. Read once, when a
 * runtime starts, by the thread that starts it.
 */
#ifndef WEFT_RUNTIME_CONFIG_H
#define WEFT_RUNTIME_CONFIG_H

#include <stdio.h>
#include <weft/config.h>

/*
 * Merge code, environment and defaults into *effective (every field set; constants such as WEFT_NEVER, WEFT_OFF
 * and WEFT_UNBOUNDED are replaced by plain values: takeover_us 0 is off, debug 0 is off, print_config 0 is off,
 * blocking_queue UINT64_MAX is no limit; a seed that was 0 has been drawn from the system, so that the printed
 * one repeats the run). `code` may be NULL. In debug mode WEFT_* variables that do not exist are named on stderr.
 * 0, or -EINVAL with a message on stderr naming what is wrong; *effective is then untouched.
 */
int weft__config_resolve(const weft_config *code, weft_config *effective);

/*
 * Set the field of *config that `variable` stands for to what `text` says, as a program would (WEFT_NEVER for
 * "off"…). 0, -EINVAL if the text is not allowed, -ENOENT if there is no such variable; *config is then untouched.
 * Reads no environment and prints no message.
 */
int weft__config_parse(const char *variable, const char *text, weft_config *config);

/* What only the environment says; read anew each time, after weft__config_resolve has refused bad values. */
const char *weft__config_trace_file(void); /* NULL: none */
int weft__config_dump_signal(void);        /* 0: none */
int weft__config_takes_sigint(void);       /* 1: SIGINT is for weft_run's main task */

/* The lines WEFT_PRINT_CONFIG=1 prints: variable, value, where it came from (default, environment, code…). */
void weft__config_print(const weft_config *code, const weft_config *effective, FILE *out);

/* Bind the calling thread as `affinity` says for worker `index`. 0 or -errno. */
int weft__config_bind_thread(enum weft_affinity affinity, unsigned index);

#endif
