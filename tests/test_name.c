/* Names: the lane of look-ups, literal addresses, connecting to the first that answers. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};
enum { FEW = sizeof few_workers / sizeof *few_workers };

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < FEW; i++)
        assert_int_equal(run_on(few_workers[i], fn, NULL), 0);
}

/*
 * This program's own resolver, in place of the C library's: it knows what the tests need and waits as long as
 * they want. Results are one block each, so that a leak is seen.
 */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    int inside, most_inside, calls, freed;
    const char *const *addresses; /* of "several.test" */
} resolver = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void enter_resolver(bool waits)
{
    pthread_mutex_lock(&resolver.lock);
    resolver.calls++;
    resolver.inside++;
    if (resolver.inside > resolver.most_inside)
        resolver.most_inside = resolver.inside;
    pthread_cond_broadcast(&resolver.changed);
    while (waits && !resolver.open)
        pthread_cond_wait(&resolver.changed, &resolver.lock);
    resolver.inside--;
    pthread_mutex_unlock(&resolver.lock);
}

static struct addrinfo *make_result(const char *text, uint16_t port, struct addrinfo *next)
{
    struct addrinfo *info = calloc(1, sizeof *info + sizeof(struct sockaddr_in6));
    struct sockaddr_in *v4 = (struct sockaddr_in *)(info + 1);
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(info + 1);

    must(info != NULL);
    info->ai_addr = (struct sockaddr *)(info + 1);
    info->ai_socktype = SOCK_STREAM;
    info->ai_next = next;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        info->ai_family = v4->sin_family = AF_INET;
        info->ai_addrlen = sizeof *v4;
        v4->sin_port = htons(port);
    } else {
        must_be(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
        info->ai_family = v6->sin6_family = AF_INET6;
        info->ai_addrlen = sizeof *v6;
        v6->sin6_port = htons(port);
    }
    return info;
}

static struct addrinfo *make_several(uint16_t port)
{
    struct addrinfo *list = NULL;
    int n = 0;

    while (resolver.addresses[n])
        n++;
    while (n-- > 0)
        list = make_result(resolver.addresses[n], port, list);
    return list;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    uint16_t port = (uint16_t)(service ? atoi(service) : 0);
    unsigned char literal[16];

    if (host && (inet_pton(AF_INET, host, literal) == 1 || inet_pton(AF_INET6, host, literal) == 1)) {
        *found = make_result(host, port, NULL);
        return 0;
    }
    if (hints && (hints->ai_flags & AI_NUMERICHOST))
        return EAI_NONAME;
    enter_resolver(strcmp(host, "slow.test") == 0);
    errno = EACCES;
    if (strcmp(host, "again.test") == 0)
        return EAI_AGAIN;
    if (strcmp(host, "broken.test") == 0)
        return EAI_FAIL;
    if (strcmp(host, "system.test") == 0)
        return EAI_SYSTEM;
    if (strcmp(host, "unknown.test") == 0)
        return EAI_NONAME;
    *found = strcmp(host, "several.test") == 0 ? make_several(port) : make_result("127.0.0.1", port, NULL);
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    for (struct addrinfo *next; list; list = next) {
        next = list->ai_next;
        free(list);
    }
    pthread_mutex_lock(&resolver.lock);
    resolver.freed++;
    pthread_cond_broadcast(&resolver.changed);
    pthread_mutex_unlock(&resolver.lock);
}

int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size, char *service,
                socklen_t service_size, int flags)
{
    (void)length;
    must_be(address->sa_family, AF_INET);
    if (!(flags & NI_NUMERICHOST))
        enter_resolver(false);
    if (host)
        snprintf(host, host_size, "%s", flags & NI_NUMERICHOST ? "127.0.0.1" : "a-long-name.test");
    if (service)
        snprintf(service, service_size, "%u", ntohs(((const struct sockaddr_in *)address)->sin_port));
    return 0;
}

static void set_open(bool open)
{
    pthread_mutex_lock(&resolver.lock);
    resolver.open = open;
    resolver.most_inside = resolver.calls = 0;
    pthread_cond_broadcast(&resolver.changed);
    pthread_mutex_unlock(&resolver.lock);
}

static int inside(void)
{
    int n;

    pthread_mutex_lock(&resolver.lock);
    n = resolver.inside;
    pthread_mutex_unlock(&resolver.lock);
    return n;
}

static int freed(void)
{
    int n;

    pthread_mutex_lock(&resolver.lock);
    n = resolver.freed;
    pthread_mutex_unlock(&resolver.lock);
    return n;
}

/* ---- looking up ---- */

static intptr_t look_up(void *host)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = weft_getaddrinfo(host, "80", &hints, &found);

    must((rc == 0) == (found != NULL));
    if (rc == 0) {
        must_be(ntohs(((struct sockaddr_in *)found->ai_addr)->sin_port), 80);
        freeaddrinfo(found);
    }
    return rc;
}

static intptr_t look_several_up(void *arg)
{
    must_be(look_up("some.test"), 0);
    must_be(look_up("unknown.test"), -ENOENT);
    must_be(look_up("again.test"), -EAGAIN);
    must_be(look_up("broken.test"), -EIO);
    must_be(look_up("system.test"), -EACCES);
    must_be(look_up("1.some.test"), 0); /* begins as a literal would */
    return (intptr_t)arg;
}

static void names_are_found_and_failures_are_errno(void **state)
{
    (void)state;
    run_everywhere(look_several_up);
}

static intptr_t literals(void *arg)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *found;

    set_open(false);
    must_be(look_up("127.0.0.1"), 0);
    must_be(look_up("::1"), 0);
    must_be(weft_getaddrinfo("no.literal", NULL, &hints, &found), -ENOENT);
    must(found == NULL);
    must_be(resolver.calls, hints.ai_flags == AI_NUMERICHOST ? 0 : -1);
    return (intptr_t)arg;
}

static void literal_addresses_are_not_looked_up(void **state)
{
    (void)state;
    run_everywhere(literals);
}

static intptr_t look_back(void *arg)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct sockaddr *any = (struct sockaddr *)&address;
    char host[NI_MAXHOST], service[NI_MAXSERV], little[4];

    must_be(weft_getnameinfo(any, sizeof address, host, sizeof host, service, sizeof service, 0), 0);
    must(strcmp(host, "a-long-name.test") == 0);
    must(strcmp(service, "80") == 0);
    must_be(weft_getnameinfo(any, sizeof address, host, sizeof host, NULL, 0, NI_NUMERICHOST), 0);
    must(strcmp(host, "127.0.0.1") == 0);
    must_be(weft_getnameinfo(any, sizeof address, little, sizeof little, NULL, 0, 0), -ENOSPC);
    must_be(weft_getnameinfo(any, 1 << 20, host, sizeof host, NULL, 0, 0), -EINVAL);
    return (intptr_t)arg;
}

static void addresses_have_names(void **state)
{
    (void)state;
    run_everywhere(look_back);
}

/* ---- the lane ---- */

static intptr_t answer(void *arg)
{
    return (intptr_t)arg;
}

static intptr_t slow_names(void *arg)
{
    enum { LOOKUPS = 40 };
    unsigned before = weft_name_limit(4);
    weft_task *tasks[LOOKUPS];

    set_open(false);
    for (int i = 0; i < LOOKUPS; i++)
        must((tasks[i] = weft_spawn(look_up, "slow.test")) != NULL);
    wait_until_true(inside() == 4);
    for (int i = 0; i < 20; i++)
        must_be(weft_blocking(answer, (void *)7), 7); /* others are not in the way */
    must_be(inside(), 4);
    must_be(weft_name_limit(0), 4);
    set_open(true);
    for (int i = 0; i < LOOKUPS; i++)
        must_be(weft_await(tasks[i]), 0);
    must(resolver.most_inside <= 4);
    must_be(weft_name_limit(before), 4);
    must_be(weft_name_limit(0), before);
    return (intptr_t)arg;
}

static void slow_names_do_not_fill_the_pool(void **state)
{
    (void)state;
    run_everywhere(slow_names);
}

static intptr_t lower_the_limit(void *arg)
{
    unsigned before = weft_name_limit(5);
    weft_task *tasks[8];

    set_open(false);
    for (int i = 0; i < 5; i++)
        must((tasks[i] = weft_spawn(look_up, "slow.test")) != NULL);
    wait_until_true(inside() == 5);
    must_be(weft_name_limit(2), 5);
    set_open(true);
    for (int i = 0; i < 5; i++)
        must_be(weft_await(tasks[i]), 0);
    set_open(false);
    for (int i = 0; i < 8; i++)
        must((tasks[i] = weft_spawn(look_up, "slow.test")) != NULL);
    wait_until_true(inside() == 2);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(inside(), 2);
    must_be(weft_name_limit(3), 2);
    wait_until_true(inside() == 3);
    set_open(true);
    for (int i = 0; i < 8; i++)
        must_be(weft_await(tasks[i]), 0);
    weft_name_limit(before);
    return (intptr_t)arg;
}

static void the_limit_can_be_changed_at_any_time(void **state)
{
    (void)state;
    run_everywhere(lower_the_limit);
}

/* Abandoned while it runs: the wait ends at once, the place in the lane is taken until the call ends, which frees
 * what it found. */
static intptr_t abandon(void *arg)
{
    unsigned before = weft_name_limit(1);
    int freed_before = freed();
    weft_timeout scope;
    weft_task *task;

    set_open(false);
    must_be(weft_timeout_begin(&scope, WEFT_MS(10)), 0);
    must_be(look_up("slow.test"), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(inside(), 1);

    task = weft_spawn(look_up, "some.test"); /* its turn does not come */
    must(task != NULL);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(weft_task_done(task), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    must_be(inside(), 1);

    set_open(true);
    wait_until_true(freed() == freed_before + 1);
    must_be(look_up("some.test"), 0);
    weft_name_limit(before);
    return (intptr_t)arg;
}

static void an_abandoned_look_up_frees_what_it_finds(void **state)
{
    (void)state;
    run_everywhere(abandon);
}

/* The same at every moment: in the lane, in the pool's queue, running, just over. */
static intptr_t abandon_often(void *arg)
{
    uint64_t seed = 4711;

    set_open(true);
    for (int i = 0; i < FEWER(1000); i++) {
        weft_task *task = weft_spawn(look_up, "slow.test");
        intptr_t rc;

        must(task != NULL);
        for (uint64_t n = draw(&seed) % 4; n > 0; n--)
            must_be(weft_yield(), 0);
        if (draw(&seed) % 2)
            must_be(weft_sleep((int64_t)(draw(&seed) % 100000)), 0);
        weft_cancel(task);
        rc = weft_await(task);
        must(rc == 0 || rc == -ECANCELED);
    }
    must_be(look_up("some.test"), 0); /* no permit was lost */
    return (intptr_t)arg;
}

static intptr_t abandon_with_one_permit(void *arg)
{
    unsigned before = weft_name_limit(1);
    intptr_t rc = abandon_often(arg);

    weft_name_limit(before);
    return rc;
}

static void look_ups_can_be_cancelled_at_any_moment(void **state)
{
    (void)state;
    run_everywhere(abandon_often);
    run_everywhere(abandon_with_one_permit);
}

/* ---- no threads ---- */

/* The sanitizers have a pthread_create of their own, which must stay. */
#if !SUPPORT_SANITIZED

#include <dlfcn.h>

static atomic_bool no_threads;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*fn)(void *), void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");

    if (atomic_load(&no_threads))
        return EAGAIN;
    memcpy(&real, &symbol, sizeof real);
    return real(thread, attributes, fn, arg);
}

static intptr_t without_threads(void *arg)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    unsigned before = weft_name_limit(1);
    char host[64];

    atomic_store(&no_threads, true);
    for (int i = 0; i < 3; i++) {
        must_be(look_up("some.test"), -EAGAIN);
        must_be(weft_getnameinfo((struct sockaddr *)&address, sizeof address, host, sizeof host, NULL, 0, 0),
                -EAGAIN);
    }
    atomic_store(&no_threads, false);
    must_be(look_up("some.test"), 0); /* no permit was lost */
    weft_name_limit(before);
    return (intptr_t)arg;
}

static void without_a_thread_a_look_up_fails(void **state)
{
    (void)state;
    run_everywhere(without_threads);
}

#else

static void without_a_thread_a_look_up_fails(void **state)
{
    (void)state;
    skip();
}

#endif

/* ---- a child of fork ---- */

static intptr_t look_up_in_child(void *arg)
{
    pid_t pid;
    int status;

    (void)arg;
    pid = fork();
    if (pid == 0) {
        sigset_t none;

        sigemptyset(&none); /* a worker blocks signals, the alarm must come */
        sigprocmask(SIG_SETMASK, &none, NULL);
        alarm(20);
        _exit(run_alone(look_up, "some.test") == 0 ? 0 : 1);
    }
    must_be(waitpid(pid, &status, 0), pid);
    must_be(status, 0);
    return 0;
}

static intptr_t fork_while_one_looks_up(void *arg)
{
    unsigned before = weft_name_limit(1);
    weft_task *task;

    set_open(false);
    must((task = weft_spawn(look_up, "slow.test")) != NULL);
    wait_until_true(inside() == 1);
    must_be(look_up_in_child(NULL), 0);
    set_open(true);
    must_be(weft_await(task), 0);
    must_be(look_up("some.test"), 0);
    weft_name_limit(before);
    return (intptr_t)arg;
}

/* A runtime in the child of a program with threads is more than a sanitizer can follow. */
static void a_child_has_permits_of_its_own(void **state)
{
    (void)state;
    if (SUPPORT_SANITIZED || getenv("WEFT_TEST_EMULATED")) /* nor can qemu: test_fork.c */
        skip();
    assert_int_equal(run_alone(fork_while_one_looks_up, NULL), 0);
    assert_int_equal(run_on(2, fork_while_one_looks_up, NULL), 0);
}

/* ---- connecting ---- */

/* A port of loopback that swallows whatever is sent there: its queue is full, so connections stay half open. */
struct hole {
    int listener;
    int fillers[4];
    weft_address address;
};

static void dig(struct hole *hole, const char *text, uint16_t port)
{
    must_be(weft_address_parse(&hole->address, text, port), 0);
    hole->listener = socket(hole->address.to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(hole->listener >= 0);
    must_be(bind(hole->listener, &hole->address.to.any, hole->address.length), 0);
    must_be(listen(hole->listener, 0), 0);
    must_be(weft_local_address(hole->listener, &hole->address), 0);
    for (int i = 0; i < 4; i++) {
        hole->fillers[i] = socket(hole->address.to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        must(hole->fillers[i] >= 0);
        connect(hole->fillers[i], &hole->address.to.any, hole->address.length);
    }
}

static void fill_in(struct hole *hole)
{
    for (int i = 0; i < 4; i++)
        close(hole->fillers[i]);
    close(hole->listener);
}

static int open_listener(weft_address *address, const char *text)
{
    int fd;

    must_be(weft_address_parse(address, text, 0), 0);
    fd = weft_listen_on(address, 0, 0);
    must(fd >= 0);
    must_be(weft_local_address(fd, address), 0);
    return fd;
}

/* Nobody listens there. */
static weft_address deserted(void)
{
    weft_address address;

    must_be(weft_close(open_listener(&address, "127.0.0.1")), 0);
    return address;
}

static intptr_t first_wins(void *arg)
{
    weft_dial_attempt attempts[8];
    weft_dial_options options = {.stagger = WEFT_MS(20), .attempts = attempts, .attempts_room = 8};
    weft_address addresses[4], peer;
    int listener = open_listener(&addresses[2], "127.0.0.1"), fd;
    struct hole hole;

    dig(&hole, "127.0.0.1", 0);
    addresses[0] = hole.address; /* does not answer */
    addresses[1] = deserted();   /* fails: the next one follows at once */
    addresses[3] = hole.address; /* never tried */
    fd = weft_dial_any(addresses, 4, &options);
    must(fd >= 0);
    must_be(weft_peer_address(fd, &peer), 0);
    must(weft_address_equal(&peer, &addresses[2]));
    must_be(options.attempts_made, 3);
    must_be(attempts[0].error, -ECANCELED);
    must_be(attempts[0].at, 0);
    must_be(attempts[1].error, -ECONNREFUSED);
    must(attempts[1].at >= WEFT_MS(20));
    must_be(attempts[2].error, 0);
    must(attempts[2].at >= attempts[1].at && attempts[2].at - attempts[1].at < WEFT_MS(20));
    must(weft_address_equal(&attempts[2].address, &addresses[2]));
    must_be(weft_close(fd), 0);
    must_be(weft_close(listener), 0);
    fill_in(&hole);
    return (intptr_t)arg;
}

static void the_first_address_to_connect_wins(void **state)
{
    (void)state;
    run_everywhere(first_wins);
}

static intptr_t all_fail(void *arg)
{
    weft_dial_attempt attempts[1];
    weft_dial_options options = {.attempts = attempts, .attempts_room = 1};
    weft_address addresses[3] = {deserted(), deserted(), deserted()};

    must_be(weft_address_parse(&addresses[0], "[::ffff:255.255.255.255]:1", 0), 0);
    must_be(weft_dial_any(addresses, 3, &options),
            -ECONNREFUSED); /* not what was last or first, but what tells most */
    must_be(options.attempts_made, 3);
    must(attempts[0].error < 0);
    must(attempts[0].error != -ECONNREFUSED);
    must_be(weft_dial_any(addresses, 1, NULL), attempts[0].error);
    must_be(weft_dial_any(addresses, 0, NULL), -EINVAL);
    return (intptr_t)arg;
}

static void the_most_telling_error_is_returned(void **state)
{
    (void)state;
    run_everywhere(all_fail);
}

static intptr_t give_up(void *arg)
{
    weft_dial_attempt attempts[2];
    weft_dial_options options = {
        .timeout = WEFT_MS(30), .stagger = WEFT_MS(5), .attempts = attempts, .attempts_room = 2};
    unsigned descriptors;
    weft_address addresses[2];
    weft_timeout scope;
    struct hole hole;

    dig(&hole, "127.0.0.1", 0);
    descriptors = count_descriptors();
    addresses[0] = addresses[1] = hole.address;
    must_be(weft_dial_any(addresses, 2, &options), -ETIMEDOUT);
    must_be(options.attempts_made, 2);
    must_be(attempts[0].error, -EINPROGRESS);
    must_be(attempts[1].error, -EINPROGRESS);
    must_be(weft_timeout_begin(&scope, WEFT_MS(10)), 0);
    must_be(weft_dial_any(addresses, 2, NULL), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(count_descriptors(), descriptors);
    fill_in(&hole);
    return (intptr_t)arg;
}

static void a_deadline_ends_all_attempts(void **state)
{
    (void)state;
    run_everywhere(give_up);
}

static intptr_t dial_names(void *arg)
{
    static const char *const mixed[] = {"127.0.0.3", "127.0.0.4", "127.0.0.5", "::1", NULL};
    weft_dial_attempt attempts[8];
    weft_dial_options options = {.attempts = attempts, .attempts_room = 8};
    weft_address address;
    int listener = open_listener(&address, "127.0.0.1"), fd;
    uint16_t port = (uint16_t)weft_address_port(&address);

    fd = weft_dial("some.test", port);
    must(fd >= 0);
    must_be(weft_close(fd), 0);
    must_be(weft_dial("unknown.test", port), -ENOENT);
    must_be(weft_dial("no name", port), -EINVAL);
    must_be(weft_dial("", port), -EINVAL);

    resolver.addresses = mixed;
    must_be(weft_dial_with("several.test", port, &options), -ECONNREFUSED);
    must_be(options.attempts_made, 4);
    must_be(attempts[0].address.to.any.sa_family, AF_INET);
    must_be(attempts[1].address.to.any.sa_family, AF_INET6); /* the families take turns */
    must_be(attempts[2].address.to.any.sa_family, AF_INET);
    must_be(attempts[3].address.to.any.sa_family, AF_INET);
    options.family = AF_INET6;
    must(weft_dial_with("several.test", port, &options) < 0);
    must_be(options.attempts_made, 1);
    must_be(weft_dial_with("127.0.0.1", port, &options), -ENOENT);

    set_open(false);
    options = (weft_dial_options){.timeout = WEFT_MS(5)};
    must_be(weft_dial_with("slow.test", port, &options), -ETIMEDOUT);
    set_open(true);
    must_be(weft_close(listener), 0);
    return (intptr_t)arg;
}

static void names_can_be_dialled(void **state)
{
    (void)state;
    run_everywhere(dial_names);
}

static void outside_a_task_it_is_an_error(void **state)
{
    weft_address address = {0};
    struct addrinfo *found;
    char text[10];

    (void)state;
    assert_int_equal(weft_getaddrinfo("some.test", NULL, NULL, &found), -EPERM);
    assert_int_equal(weft_dial_any(&address, 1, NULL), -EPERM);
    assert_int_equal(
        weft_getnameinfo(&address.to.any, sizeof address.to.v4, text, sizeof text, NULL, 0, NI_NUMERICHOST),
        -EPERM);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_and_failures_are_errno),
        cmocka_unit_test(literal_addresses_are_not_looked_up),
        cmocka_unit_test(addresses_have_names),
        cmocka_unit_test(slow_names_do_not_fill_the_pool),
        cmocka_unit_test(the_limit_can_be_changed_at_any_time),
        cmocka_unit_test(an_abandoned_look_up_frees_what_it_finds),
        cmocka_unit_test(look_ups_can_be_cancelled_at_any_moment),
        cmocka_unit_test(without_a_thread_a_look_up_fails),
        cmocka_unit_test(a_child_has_permits_of_its_own),
        cmocka_unit_test(the_first_address_to_connect_wins),
        cmocka_unit_test(the_most_telling_error_is_returned),
        cmocka_unit_test(a_deadline_ends_all_attempts),
        cmocka_unit_test(names_can_be_dialled),
        cmocka_unit_test(outside_a_task_it_is_an_error),
    };

    return run_all(tests, argc, argv);
}
