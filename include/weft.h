/*
 * weft: a multi-threaded, work-stealing task runtime for Linux.
 *
 * This header includes the whole public interface; each <weft/TOPIC.h> also stands alone.
 *
 * Results: every call returns its result, or a negative errno in [-4095, -1]. errno itself is never the
 * way a call reports, since a task may resume on another thread.
 *
 * Each function says whether it is a suspension point (a call that may park the calling task) and where it
 * may be called from: "task" means inside a task, "any thread" includes threads that weft did not make.
 */
#ifndef WEFT_H
#define WEFT_H

#include <weft/base.h>
#include <weft/blocking.h>
#include <weft/broadcast.h>
#include <weft/channel.h>
#include <weft/config.h>
#include <weft/coroutine.h>
#include <weft/debug.h>
#include <weft/fd.h>
#include <weft/file.h>
#include <weft/generator.h>
#include <weft/group.h>
#include <weft/local.h>
#include <weft/name.h>
#include <weft/net.h>
#include <weft/process.h>
#include <weft/promise.h>
#include <weft/protocol.h>
#include <weft/queue.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/select.h>
#include <weft/serve.h>
#include <weft/signal.h>
#include <weft/stackless.h>
#include <weft/stream.h>
#include <weft/sync.h>
#include <weft/task.h>
#include <weft/time.h>
#include <weft/version.h>

#endif
