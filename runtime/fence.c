/* The rare side of the asymmetric fence (fence.h). Any thread. */
#include "runtime/fence.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_asymmetric;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static long membarrier(int command)
{
    return syscall(SYS_membarrier, command, 0, 0);
}

static void find_out(void)
{
    is_asymmetric = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
                    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}

void weft__fence_init(void)
{
    pthread_once(&once, find_out);
}

bool weft__fence_is_asymmetric(void)
{
    return is_asymmetric;
}

void weft__fence_heavy(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (is_asymmetric)
        membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}
