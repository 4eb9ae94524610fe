/* What the files of weft::curl share: the client's constant part. */
#ifndef WEFT_IO_CURL_CLIENT_H
#define WEFT_IO_CURL_CLIENT_H

#include <weft/curl.h>

/* Without 0s: what they stand for is filled in. ca_file is the client's own copy. */
const weft_curl_options *weft__curl_options(const weft_curl *client);

/* As weft_curl_errno, but the operating system's own error where the handle has one. */
int weft__curl_error(CURL *easy, CURLcode code);

#endif
