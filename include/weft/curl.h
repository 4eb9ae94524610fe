/*
 * libcurl in tasks: transfers that park the task which asks for them.
 *
 * A client is one multi handle of libcurl: its connections, which are kept and used again, its limits. Easy
 * handles are made and set up with libcurl's own calls; weft_curl_perform takes the place of curl_easy_perform.
 * Any number of tasks, on any workers, may perform on one client at the same time, each with a handle of its own.
 *
 * All that libcurl does for a client, the callbacks of its handles included, happens in a task of the client's,
 * one thing at a time: a client uses one processor at most; open several to use more. Callbacks are ordinary
 * code. They must not suspend: suspension points return -EPERM in them. While one runs the other transfers of its
 * client wait.
 *
 * A part of its own, weft::curl; not included by <weft.h>.
 */
#ifndef WEFT_CURL_H
#define WEFT_CURL_H

#include <curl/curl.h>
#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_curl weft_curl;

enum {
    /*
     * A transfer to a host to which a connection is being made waits whether that one can carry it as well
     * (HTTP/2), instead of making one of its own. For weft_curl_easy and weft_curl_get.
     */
    WEFT_CURL_MULTIPLEX = 1u << 0,
    /* weft_curl_get keeps the headers of the response. */
    WEFT_CURL_HEADERS = 1u << 1
};

/* Zeroed (or WEFT_CURL_DEFAULT) means the defaults. */
typedef struct weft_curl_options {
    uint32_t flags; /* WEFT_CURL_* */
    /* Of the client. */
    uint32_t connections_max;          /* connections at a time; more transfers wait for one. 0: no limit */
    uint32_t connections_per_host_max; /* the same for one host. 0: no limit */
    uint32_t idle_max;                 /* connections that are kept to be used again. 0: 100 */
    /* Of the handles that weft_curl_easy makes, and so of weft_curl_get. */
    const char *ca_file;     /* certificates to trust, PEM; copied. NULL: the system's */
    int64_t connect_timeout; /* ns until a connection is made. 0: 30 s */
    uint32_t redirects_max;  /* how many to follow. 0: 10 */
    /* Of weft_curl_get. */
    size_t body_max; /* bytes. 0: 16 MiB */
} weft_curl_options;

#define WEFT_CURL_DEFAULT         \
    {                             \
        0, 0, 0, 0, NULL, 0, 0, 0 \
    }

/*
 * Open a client. NULL options are the defaults. 0 with *client, or -ENOMEM, -EMFILE, -ENFILE, -EPERM outside a
 * task, -EIO if libcurl cannot be set up. Every client is to be closed, before its runtime stops. Task; not a
 * suspension point.
 */
WEFT_API int weft_curl_open(weft_curl **client, const weft_curl_options *options);

/*
 * Close the client: transfers that run are ended with -ESHUTDOWN; when this returns nothing of them runs any
 * more, and the connections are closed. Nobody may begin a transfer once this was called. Neither cancellation
 * nor a deadline interrupts it. NULL is allowed. 0, or -EPERM in a callback or a stackless task, where nothing is
 * done. Any thread; suspension point.
 */
WEFT_API int weft_curl_close(weft_curl *client);

/*
 * Perform the transfer of an easy handle, as curl_easy_perform does. 0, or what libcurl's result comes to as an
 * errno (weft_curl_errno; the operating system's own where there is one: -ECONNREFUSED, -ECONNRESET). *code, if
 * not NULL, is libcurl's result, or CURLE_ABORTED_BY_CALLBACK if it was not libcurl that ended the transfer:
 *
 * -ECANCELED, -ETIMEDOUT: the task was cancelled, or a deadline passed. The transfer is taken out of the client;
 * nothing of it runs after this returns, and the handle can be used again. (-ETIMEDOUT with
 * CURLE_OPERATION_TIMEDOUT: a time limit of the handle's own.) -ESHUTDOWN: the client was closed or its runtime
 * is stopping. -EBUSY: the handle is being performed. -ENOMEM, -EINVAL, -EPERM.
 *
 * Until it returns the handle is the client's. Its CURLOPT_NOSIGNAL and CURLOPT_QUICK_EXIT are switched on. Any
 * thread; suspension point.
 */
WEFT_API int weft_curl_perform(weft_curl *client, CURL *easy, CURLcode *code);

/*
 * An easy handle for an http or https URL with the client's defaults: certificates are verified, redirects (to
 * such URLs only) followed. NULL: out of memory, or a URL that cannot be. To be freed with curl_easy_cleanup. Any
 * thread; not a suspension point.
 */
WEFT_API CURL *weft_curl_easy(weft_curl *client, const char *url) WEFT_NODISCARD;

typedef struct weft_curl_response {
    long status;         /* of HTTP: 200… */
    char *body;          /* with a zero after it; never NULL in a response */
    size_t size;         /* of the body, without the zero */
    char *headers;       /* as they came, with a zero after them; NULL without WEFT_CURL_HEADERS */
    size_t headers_size; /* without the zero */
    CURLcode code;       /* as by weft_curl_perform */
    char message[CURL_ERROR_SIZE]; /* what libcurl says of a failure, or "" */
} weft_curl_response;

/*
 * GET a URL (http or https) into memory. 0 with the response, whatever its status, or as weft_curl_perform;
 * -EMSGSIZE: the body is longer than `body_max`; -EINVAL: no such URL can be. On an error only `code` and
 * `message` are filled in. Any thread; suspension point.
 */
WEFT_API int weft_curl_get(weft_curl *client, const char *url, weft_curl_response *response);

/* Free what a response holds, also one that has failed or was freed before. Any thread; not a suspension point. */
WEFT_API void weft_curl_response_free(weft_curl_response *response);

/* What a result of libcurl comes to: 0 or -errno; -EPROTO for those that no errno describes. Any thread; not a
 * suspension point. */
WEFT_API int weft_curl_errno(CURLcode code);

WEFT_END_DECLS

#endif
