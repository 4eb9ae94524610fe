/*
 * A process that has hardly any descriptors: what needs one says -EMFILE and leaves nothing behind, a server pauses,
 * tells so, goes on by itself, and in the end has served everybody. In a child, whose limit is 64.
 */
#include "hostile.h"
#include "needs.h"

enum { LIMIT = 64 };

static void lower_limit(rlim_t to)
{
    struct rlimit limit;

    must_be(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = to;
    must_be(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Take all that are left but `spare`; how many. */
static int take_descriptors(int *fds, int spare)
{
    int n = 0;

    while (n < LIMIT && (fds[n] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    for (int i = 0; i < spare; i++)
        close(fds[--n]);
    return n;
}

static void give_back(const int *fds, int n)
{
    while (n > 0)
        close(fds[--n]);
}

/* ---- a server ---- */

struct crowd {
    int port;
    weft_sem places;
    atomic_int served;
};

static atomic_int pauses, resumptions;

static void note_pause(weft_server *server, int error, void *arg)
{
    (void)server;
    (void)arg;
    must(error == 0 || error == -EMFILE);
    atomic_fetch_add(error ? &pauses : &resumptions, 1);
}

/* Both ends are in this process, so the clients leave some descriptors to the server: all would be a deadlock. */
static intptr_t insist(void *arg)
{
    struct crowd *crowd = arg;
    int fd;

    must_be(weft_sem_acquire(&crowd->places), 0);
    while ((fd = weft_dial("127.0.0.1", (uint16_t)crowd->port)) == -EMFILE)
        must_be(weft_sleep(WEFT_US(500)), 0);
    must(fd >= 0);
    exchange(fd, "me too");
    reset_connection(fd);
    must_be(weft_sem_release(&crowd->places), 0);
    atomic_fetch_add(&crowd->served, 1);
    return 0;
}

static void serve_a_crowd(const weft_serve_options *options)
{
    enum { CROWD = 150 };
    weft_server *server = serve(echo_once, NULL, options);
    struct crowd crowd = {.port = weft_server_port(server), .places = WEFT_SEM_INIT(LIMIT * 3 / 8)};
    weft_server_stats stats;
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < CROWD; i++)
        must_be(weft_group_spawn(&group, insist, &crowd), 0);
    must_be(weft_group_wait(&group), 0);
    must_be(atomic_load(&crowd.served), CROWD);
    wait_until_true(clients_of(server) == 0);
    weft_server_look(server, &stats);
    must_be(stats.accepted, CROWD);
    be_a_good_client(server);
    weft_server_look(server, &stats);
    must_be(atomic_load(&resumptions), atomic_load(&pauses));
    must_be(stats.pauses, atomic_load(&pauses));
    atomic_store(&pauses, 0);
    atomic_store(&resumptions, 0);
    weft_server_free(server);
}

/* A server that has none at all pauses; it goes on when there are some again, though none of its own clients leaves. */
static void starve_and_recover(void)
{
    static const weft_serve_options options = {.paused = note_pause};
    weft_server *server = serve(echo_once, NULL, &options);
    int fds[LIMIT], n, client;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)weft_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    n = take_descriptors(fds, 0);
    must_be(weft_connect(client, (struct sockaddr *)&to, sizeof to), 0);
    wait_until_true(atomic_load(&pauses) == 1);
    must_be(atomic_load(&resumptions), 0);
    give_back(fds, n);
    exchange(client, "at last"); /* after 100 ms at most */
    must_be(atomic_load(&resumptions), 1);
    must_be(atomic_load(&pauses), 1);
    reset_connection(client);
    wait_until_true(clients_of(server) == 0);
    /* A server that pauses can be closed. */
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    n = take_descriptors(fds, 0);
    must_be(weft_connect(client, (struct sockaddr *)&to, sizeof to), 0);
    wait_until_true(atomic_load(&pauses) == 2);
    weft_server_free(server);
    give_back(fds, n);
    must_be(weft_close(client), 0);
    atomic_store(&pauses, 0);
    atomic_store(&resumptions, 0);
}

static intptr_t crowd_in(void *arg)
{
    static const weft_serve_options keep = {.paused = note_pause, .linger = -1},
                                    on_data = {.paused = note_pause, .flags = WEFT_SERVE_ON_DATA};

    serve_a_crowd(&keep);
    serve_a_crowd(&on_data);
    starve_and_recover();
    return (intptr_t)arg;
}

/* ---- everything else that needs one ---- */

static int free_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < LIMIT; fd++)
        n += fcntl(fd, F_GETFD) < 0;
    return n;
}

/* With so many left, of which it must leave as many: what it says. */
static int get_with(size_t which, int spare)
{
    int fds[LIMIT], left = -1, rc = 0;

    /* Once more: the runtime itself may have one for a moment, to look at a thread of its own. */
    for (int i = 0; i < 5 && left != spare; i++) {
        int n = take_descriptors(fds, spare);

        rc = needs[which].does();
        left = free_descriptors();
        give_back(fds, n);
    }
    if (left != spare) {
        fprintf(stderr, "%s with %d descriptors: %d, %d are left\n", needs[which].name, spare, rc, left);
        abort();
    }
    return rc;
}

/* With none left, with one, with two …: -EMFILE until there are enough, and then the result. */
static void want(size_t which, int enough)
{
    int rc = -EMFILE;

    for (int spare = 0; spare <= enough; spare++) {
        bool done = rc == needs[which].result;

        rc = get_with(which, spare);
        if (rc != needs[which].result && (rc != -EMFILE || done)) {
            fprintf(stderr, "%s with %d descriptors: %d\n", needs[which].name, spare, rc);
            abort();
        }
    }
    must_be(rc, needs[which].result);
}

static intptr_t want_everything(void *arg)
{
    enum { ENOUGH = 14 };

    /* Whatever is opened once and kept. */
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        must_be(needs[i].does(), needs[i].result);
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        want(i, ENOUGH);
    return (intptr_t)arg;
}

/* ---- the child ---- */

struct job {
    weft_fn *fn;
    uint32_t workers;
};

static void run_job(void *arg)
{
    struct job *job = arg;

    lower_limit(LIMIT);
    must_be(run_on(job->workers, job->fn, NULL), 0);
}

static void run_in_children(weft_fn *fn)
{
    char text[4000];

    for (int i = 0; i < FEW; i++) {
        struct job job = {fn, few_workers[i]};
        int status = run_in_child(run_job, &job, text, sizeof text);

        if (status != 0)
            fail_msg("%u workers: status %d: %s", few_workers[i], status, text);
    }
}

static void a_server_pauses_and_serves_everybody_in_the_end(void **state)
{
    (void)state;
    run_in_children(crowd_in);
}

static void what_needs_a_descriptor_says_so_and_leaves_nothing(void **state)
{
    (void)state;
    run_in_children(want_everything);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_pauses_and_serves_everybody_in_the_end),
        cmocka_unit_test(what_needs_a_descriptor_says_so_and_leaves_nothing),
    };

    return run_all(tests, argc, argv);
}
