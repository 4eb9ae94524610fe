/*
 * The memory under both models: processors with store buffers. Included by park.pml and idle.pml, which define
 * CPUS and PLACES before.
 *
 * Every processor has a first-in first-out buffer of three stores: fall_asleep makes as many before its fence, and
 * with two the first would always be visible. A plain store goes into the buffer; a load looks into the own buffer
 * first (newest store first), then into memory; the process drain() moves the oldest store of some buffer to memory
 * at any time. So a load can overtake an earlier store of the same processor: that is x86-TSO.
 *
 * A read-modify-write is weaker here than the one of x86: it reads memory and it is atomic, but its store goes
 * into the buffer like any other, so that the loads that follow can overtake it. That is what C11 promises of
 * memory_order_acq_rel and what AArch64 does. Until the store has reached memory the place is reserved: others
 * still read the old value, but no other store or read-modify-write of that place comes in between. Thus only
 * fence() is a full fence, and an algorithm that leans on the locked instructions of x86 fails here. With X86
 * defined the read-modify-writes are those of x86: they drain the buffer and write to memory.
 *
 * Stores become visible in program order (each is a release) and loads are done in program order (each is an
 * acquire): a missing release or acquire is not found by these models.
 */
#define DEPTH 3

typedef store_buffer {
    byte count;
    byte place[DEPTH];
    byte value[DEPTH];
    bit locked[DEPTH] /* the store of a read-modify-write */
}

store_buffer buffer[CPUS];
byte memory[PLACES];
bit reserved[PLACES];

/* Is a store to this place in the buffer of this processor, as its number n? */
#define HAS(cpu, at, n) (buffer[cpu].count > (n) && buffer[cpu].place[n] == (at))
#define HAS_ANY(cpu, at) (HAS(cpu, at, 0) || HAS(cpu, at, 1) || HAS(cpu, at, 2))

#define LOAD(cpu, at) \
    (HAS(cpu, at, 2) -> buffer[cpu].value[2] : (HAS(cpu, at, 1) -> buffer[cpu].value[1] : \
        (HAS(cpu, at, 0) -> buffer[cpu].value[0] : memory[at])))

#define ROOM(cpu) (buffer[cpu].count < DEPTH)

/* May this processor do a read-modify-write here? Its own store to the place has to get there first. */
#ifdef X86
#define OWNS(cpu, at) (buffer[cpu].count == 0)
#else
#define OWNS(cpu, at) (ROOM(cpu) && !reserved[at] && !HAS_ANY(cpu, at))
#endif

#define DRAINS(cpu) (buffer[cpu].count > 0 && (buffer[cpu].locked[0] || !reserved[buffer[cpu].place[0]]))

inline put(cpu, at, what, lock)
{
    buffer[cpu].place[buffer[cpu].count] = at;
    buffer[cpu].value[buffer[cpu].count] = what;
    buffer[cpu].locked[buffer[cpu].count] = lock;
    buffer[cpu].count++
}

inline put_locked(cpu, at, what)
{
#ifdef X86
    memory[at] = what
#else
    reserved[at] = 1;
    put(cpu, at, what, 1)
#endif
}

inline store(cpu, at, what)
{
    atomic {
        ROOM(cpu);
        put(cpu, at, what, 0)
    }
}

/* `what` may speak of `was`, the value before. */
inline modify(cpu, at, was, what)
{
    atomic {
        OWNS(cpu, at);
        was = memory[at];
        put_locked(cpu, at, what)
    }
}

/* Compare and swap. A failure is no more than a load: it may have read the old value of a reserved place. */
inline swap(cpu, at, from, to, done)
{
    atomic {
        if
        :: LOAD(cpu, at) != (from) -> done = 0
        :: OWNS(cpu, at) && memory[at] == (from) ->
            put_locked(cpu, at, to);
            done = 1
        fi
    }
}

inline fence(cpu)
{
    buffer[cpu].count == 0
}

inline advance(cpu, n)
{
    buffer[cpu].place[n] = buffer[cpu].place[n + 1];
    buffer[cpu].value[n] = buffer[cpu].value[n + 1];
    buffer[cpu].locked[n] = buffer[cpu].locked[n + 1]
}

inline drain_one(cpu)
{
    memory[buffer[cpu].place[0]] = buffer[cpu].value[0];
    if
    :: buffer[cpu].locked[0] -> reserved[buffer[cpu].place[0]] = 0
    :: else
    fi;
    advance(cpu, 0);
    advance(cpu, 1);
    buffer[cpu].place[2] = 0;
    buffer[cpu].value[2] = 0;
    buffer[cpu].locked[2] = 0;
    buffer[cpu].count--
}

active proctype drain()
{
end:
    do
    :: atomic { DRAINS(0) -> drain_one(0) }
    :: atomic { DRAINS(1) -> drain_one(1) }
#if CPUS > 2
    :: atomic { DRAINS(2) -> drain_one(2) }
#endif
#if CPUS > 3
    :: atomic { DRAINS(3) -> drain_one(3) }
#endif
#if CPUS > 4
    :: atomic { DRAINS(4) -> drain_one(4) }
#endif
    od
}
