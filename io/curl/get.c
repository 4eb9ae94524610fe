/* weft_curl_easy and weft_curl_get. Any thread; the collectors are called by the client's driver. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/curl/client.h"

enum { FIRST_CAPACITY = 4096, HEADERS_MAX = 1 << 20 };

/* ---- handles ---- */

/* Rounded up; at most what libcurl takes. */
static long milliseconds(int64_t ns)
{
    int64_t ms = ns / 1000000 + (ns % 1000000 > 0);

    return (long)(ms < INT32_MAX ? ms : INT32_MAX);
}

static CURLcode set_up(CURL *easy, const weft_curl_options *options, const char *url)
{
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_URL, url);

#define SET(option, value)                                  \
    do {                                                    \
        if (rc == CURLE_OK)                                 \
            rc = curl_easy_setopt(easy, (option), (value)); \
    } while (0)
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    SET(CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    SET(CURLOPT_FOLLOWLOCATION, 1L);
    SET(CURLOPT_MAXREDIRS, (long)options->redirects_max);
    SET(CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options->connect_timeout));
    SET(CURLOPT_PIPEWAIT, options->flags & WEFT_CURL_MULTIPLEX ? 1L : 0L);
    if (options->ca_file)
        SET(CURLOPT_CAINFO, options->ca_file);
    return rc;
}

/* 0 with *easy, or -errno. */
static int make(weft_curl *client, const char *url, CURL **easy)
{
    CURLcode rc;

    if (!url)
        return -EINVAL;
    *easy = curl_easy_init();
    if (!*easy)
        return -ENOMEM;
    rc = set_up(*easy, weft__curl_options(client), url);
    if (rc == CURLE_OK)
        return 0;
    curl_easy_cleanup(*easy);
    return weft_curl_errno(rc);
}

CURL *weft_curl_easy(weft_curl *client, const char *url)
{
    CURL *easy;

    return make(client, url, &easy) == 0 ? easy : NULL;
}

/* ---- collecting a response ---- */

struct text {
    char *bytes;
    size_t size, capacity, limit;
};

struct collection {
    struct text body, headers;
    int error; /* why it was refused */
};

/* Room for so many bytes and the zero. 0 or -errno. */
static int make_room(struct text *text, size_t more)
{
    size_t capacity = text->capacity;
    char *bytes;

    if (more > text->limit - text->size)
        return -EMSGSIZE;
    if (text->bytes && text->size + more < capacity)
        return 0;
    capacity = capacity * 2 > FIRST_CAPACITY ? capacity * 2 : FIRST_CAPACITY;
    if (capacity <= text->size + more)
        capacity = text->size + more + 1;
    bytes = realloc(text->bytes, capacity);
    if (!bytes)
        return -ENOMEM;
    text->bytes = bytes;
    text->capacity = capacity;
    return 0;
}

static int append(struct text *text, const char *bytes, size_t size)
{
    int rc = make_room(text, size);

    if (rc < 0)
        return rc;
    if (size > 0)
        memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = '\0';
    return 0;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *arg)
{
    struct collection *collection = arg;

    collection->error = append(&collection->body, bytes, size);
    return collection->error < 0 ? 0 : size * one;
}

/* Each response, of a redirect say, or 100 Continue, begins with a status line: the last one's headers stay. */
static size_t on_header(char *bytes, size_t one, size_t size, void *arg)
{
    struct collection *collection = arg;

    if (size >= 5 && memcmp(bytes, "HTTP/", 5) == 0)
        collection->headers.size = 0;
    collection->error = append(&collection->headers, bytes, size);
    return collection->error < 0 ? 0 : size * one;
}

static CURLcode collect_into(CURL *easy, struct collection *collection, const weft_curl_options *options,
                             char *message)
{
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);

    collection->body.limit = options->body_max;
    collection->headers.limit = HEADERS_MAX;
    SET(CURLOPT_WRITEDATA, collection);
    SET(CURLOPT_ERRORBUFFER, message);
    SET(CURLOPT_MAXFILESIZE_LARGE, options->body_max > INT64_MAX ? INT64_MAX : (curl_off_t)options->body_max);
    if (options->flags & WEFT_CURL_HEADERS) {
        SET(CURLOPT_HEADERFUNCTION, on_header);
        SET(CURLOPT_HEADERDATA, collection);
    }
    return rc;
}

/* 0: it is all in the collection. */
static int fetch(weft_curl *client, CURL *easy, struct collection *collection, weft_curl_response *response)
{
    const weft_curl_options *options = weft__curl_options(client);
    CURLcode code = collect_into(easy, collection, options, response->message);
    int rc = weft_curl_errno(code);

    if (rc == 0)
        rc = weft_curl_perform(client, easy, &code);
    response->code = code;
    if (rc == 0) /* an empty body is a body */
        rc = append(&collection->body, NULL, 0);
    if (rc == 0 && (options->flags & WEFT_CURL_HEADERS))
        rc = append(&collection->headers, NULL, 0);
    return rc < 0 && collection->error < 0 ? collection->error : rc;
}

/* libcurl has not always something particular to say. */
static void explain(weft_curl_response *response)
{
    if (response->message[0] == '\0' && response->code != CURLE_OK && response->code != CURLE_ABORTED_BY_CALLBACK)
        snprintf(response->message, sizeof response->message, "%s", curl_easy_strerror(response->code));
}

int weft_curl_get(weft_curl *client, const char *url, weft_curl_response *response)
{
    struct collection collection = {0};
    CURL *easy;
    int rc;

    memset(response, 0, sizeof *response);
    rc = make(client, url, &easy);
    if (rc < 0) {
        response->code = rc == -ENOMEM ? CURLE_OUT_OF_MEMORY : CURLE_URL_MALFORMAT;
        explain(response);
        return rc;
    }
    rc = fetch(client, easy, &collection, response);
    if (rc == 0) {
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &response->status);
        response->body = collection.body.bytes;
        response->size = collection.body.size;
        response->headers = collection.headers.bytes;
        response->headers_size = collection.headers.size;
    } else {
        free(collection.body.bytes);
        free(collection.headers.bytes);
        explain(response);
    }
    curl_easy_cleanup(easy);
    return rc;
}

void weft_curl_response_free(weft_curl_response *response)
{
    free(response->body);
    free(response->headers);
    response->body = response->headers = NULL;
    response->size = response->headers_size = 0;
}
