/* A program that uses the installed weft::tls, if there is one. */
#include <stdio.h>
#include <weft.h>
#include <weft/tls.h>

int main(void)
{
    weft_tls_context *context;
    int rc = weft_tls_client_new(&context, NULL);

    weft_tls_context_free(context);
    printf(rc == 0 ? "ok: weft::tls\n" : "failed: %d\n", rc);
    return rc != 0;
}
