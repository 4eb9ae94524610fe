/*
 * Eight downloads over HTTPS, each followed by a second of sleep: a little more than a second in all. The code of
 * each is printed as it finishes, the list of them in the order in which they were asked for.
 *
 * usage: downloads URL CA_FILE [pool]      fetches URL0 to URL7
 *
 * With `pool` its twin: the same by libcurl's blocking interface, in the blocking pool.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>
#include <weft/curl.h>

enum { DOWNLOADS = 8 };

static weft_curl *client;
static const char *base, *ca_file;

/* ---- in tasks ---- */

static intptr_t download(void *number)
{
    weft_curl_response response;
    char url[1024];
    int rc;

    snprintf(url, sizeof url, "%s%d", base, (int)(intptr_t)number);
    rc = weft_curl_get(client, url, &response);
    if (rc < 0) {
        fprintf(stderr, "downloads: %s: %s\n", url, response.message);
        return rc;
    }
    weft_curl_response_free(&response);
    rc = weft_sleep(WEFT_SEC(1));
    if (rc < 0)
        return rc;
    printf("%ld\n", response.status);
    return response.status;
}

/* ---- in the blocking pool ---- */

struct call {
    char url[1024];
    long status;
};

static size_t drop(char *bytes, size_t one, size_t size, void *unused)
{
    (void)bytes;
    (void)unused;
    return one * size;
}

static intptr_t fetch(void *arg)
{
    struct call *call = arg;
    CURL *easy = curl_easy_init();
    CURLcode code;

    if (!easy)
        return weft_curl_errno(CURLE_OUT_OF_MEMORY);
    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
    code = curl_easy_perform(easy);
    if (code == CURLE_OK)
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &call->status);
    else
        fprintf(stderr, "downloads: %s: %s\n", call->url, curl_easy_strerror(code));
    curl_easy_cleanup(easy);
    return weft_curl_errno(code);
}

static intptr_t download_in_pool(void *number)
{
    struct call call = {.status = 0};
    intptr_t rc;

    snprintf(call.url, sizeof call.url, "%s%d", base, (int)(intptr_t)number);
    rc = weft_blocking(fetch, &call);
    if (rc == 0)
        rc = weft_sleep(WEFT_SEC(1));
    if (rc < 0)
        return rc;
    printf("%ld\n", call.status);
    return call.status;
}

/* ---- both ---- */

static intptr_t download_all(weft_fn *fn)
{
    weft_task *tasks[DOWNLOADS];
    intptr_t codes[DOWNLOADS], rc;

    for (intptr_t i = 0; i < DOWNLOADS; i++)
        tasks[i] = weft_spawn(fn, (void *)i);
    rc = weft_gather_all(tasks, DOWNLOADS, codes);
    if (rc < 0)
        return rc;
    for (int i = 0; i < DOWNLOADS; i++)
        printf("%s%ld", i ? ", " : "[", (long)codes[i]);
    printf("]\nCount: %d\n", DOWNLOADS);
    for (int i = 0; i < DOWNLOADS && rc == 0; i++)
        rc = codes[i] < 0 ? codes[i] : 0;
    return rc;
}

static intptr_t start(void *pool)
{
    weft_curl_options options = {.flags = WEFT_CURL_MULTIPLEX, .ca_file = ca_file};
    int64_t begun = weft_now();
    intptr_t rc = weft_curl_open(&client, &options);

    if (rc < 0)
        return rc;
    rc = download_all(pool ? download_in_pool : download);
    weft_curl_close(client);
    printf("%.2f s\n", (double)(weft_now() - begun) / 1e9);
    return rc;
}

int main(int argc, char **argv)
{
    intptr_t rc;

    if (argc < 3) {
        fprintf(stderr, "usage: downloads URL CA_FILE [pool]\n");
        return 2;
    }
    base = argv[1];
    ca_file = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    rc = weft_run(start, argc > 3 ? argv : NULL);
    if (rc < 0)
        fprintf(stderr, "downloads: %s\n", strerror((int)-rc));
    return rc < 0;
}
