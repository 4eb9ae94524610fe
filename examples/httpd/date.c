/*
 * The Date header's value: a text of 29 characters that one task replaces each second while every worker reads it.
 *
 * A sequence lock. The version is odd while the words change; a reader that finds it odd, or changed after it
 * has read the words, reads again. Why a torn text cannot pass: the writer makes the version odd before each
 * release store of a word, and a reader's acquire load that takes a new word therefore sees that odd version,
 * or a later one, when it looks a second time. No separate fence is needed on either side.
 */
#include "date.h"

#include <string.h>
#include <time.h>

static const char day_names[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

static void put_digits(char *out, int value, int digits)
{
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* By hand: strftime's names follow the locale, HTTP's do not. */
static void format_date(char *out, const struct tm *tm)
{
    memcpy(out, "Day, 00 Mon 0000 00:00:00 GMT", DATE_LENGTH);
    memcpy(out, day_names[tm->tm_wday], 3);
    put_digits(out + 5, tm->tm_mday, 2);
    memcpy(out + 8, month_names[tm->tm_mon], 3);
    put_digits(out + 12, tm->tm_year + 1900, 4);
    put_digits(out + 17, tm->tm_hour, 2);
    put_digits(out + 20, tm->tm_min, 2);
    put_digits(out + 23, tm->tm_sec, 2);
}

void date_refresh(struct date *date)
{
    union {
        char text[DATE_WORDS * sizeof(uint64_t)];
        uint64_t words[DATE_WORDS];
    } fresh = {.text = ""};
    struct tm tm;
    time_t now = time(NULL);
    gmtime_r(&now, &tm);
    format_date(fresh.text, &tm);

    pthread_mutex_lock(&date->writing);
    uint32_t version = atomic_load_explicit(&date->version, memory_order_relaxed);
    atomic_store_explicit(&date->version, version + 1, memory_order_relaxed);
    /* release: keeps the odd version before the words; pairs with the acquire loads in date_copy */
    for (int i = 0; i < DATE_WORDS; i++)
        atomic_store_explicit(&date->words[i], fresh.words[i], memory_order_release);
    /* release: the words are complete; pairs with the first load in date_copy */
    atomic_store_explicit(&date->version, version + 2, memory_order_release);
    pthread_mutex_unlock(&date->writing);
}

void date_copy(struct date *date, char *out)
{
    uint64_t words[DATE_WORDS];
    uint32_t before, after;
    do {
        /* acquire: pairs with the last store in date_refresh */
        before = atomic_load_explicit(&date->version, memory_order_acquire);
        /* acquire: pairs with the word stores in date_refresh, and keeps the second look behind them */
        for (int i = 0; i < DATE_WORDS; i++)
            words[i] = atomic_load_explicit(&date->words[i], memory_order_acquire);
        after = atomic_load_explicit(&date->version, memory_order_relaxed);
    } while (before != after || (before & 1) != 0);
    memcpy(out, words, DATE_LENGTH);
}

void date_init(struct date *date)
{
    memset(date, 0, sizeof(*date));
    pthread_mutex_init(&date->writing, NULL);
    date_refresh(date);
}

void date_term(struct date *date)
{
    pthread_mutex_destroy(&date->writing);
}
