/*
 * Signals as a stream that tasks read.
 *
 *     static const int signals[] = {SIGHUP, SIGUSR1};
 *     weft_signals *stream;
 *
 *     rc = weft_signal_open(signals, 2, &stream);
 *     while ((signal_number = weft_signal_next(stream)) > 0) …
 *     weft_signal_close(stream);
 *
 * While a stream for a signal is open, the signal has no other effect: neither its default action nor an earlier
 * handler, which comes back when the last stream for it is closed. Several streams in one process each see each
 * signal. weft's own threads block signals, so one of the program's other threads must not: the thread in weft_run
 * does.
 *
 * The kernel merges signals of the same number that wait to be delivered. What is delivered is counted, and read as
 * often; signals of different numbers may be read in another order than they came.
 */
#ifndef WEFT_SIGNAL_H
#define WEFT_SIGNAL_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_signals weft_signals;

/*
 * Begin to receive these signals. 0 with the stream in *stream; -EINVAL for a signal that cannot be caught, or that
 * tells of a fault in the code (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS), and for none; -ENOMEM, -EMFILE.
 * Any thread; not a suspension point.
 */
WEFT_API int weft_signal_open(const int *signals, size_t count, weft_signals **stream);

/*
 * Wait for the next signal: its number, -EBADF if the stream is closed meanwhile, -ECANCELED, -ETIMEDOUT, -EPERM
 * outside a task, -ENOTRECOVERABLE in the child of a fork. Of several tasks that read one stream each signal goes to
 * one. Task; suspension point.
 */
WEFT_API int weft_signal_next(weft_signals *stream);

/* As weft_signal_next; -EAGAIN where it would wait. Any thread; not a suspension point. */
WEFT_API int weft_signal_try_next(weft_signals *stream);

/*
 * Close the stream: those who wait get -EBADF, signals that were not read are forgotten. 0; NULL is allowed. Any
 * thread; not a suspension point.
 */
WEFT_API int weft_signal_close(weft_signals *stream);

/*
 * For servers: wait for SIGINT or SIGTERM, and return which. From then on they act as before the call, so that a
 * second one ends a program that does not end by itself. Errors as of weft_signal_open and weft_signal_next. Task;
 * suspension point.
 */
WEFT_API int weft_signal_wait_stop(void);

WEFT_END_DECLS

#endif
