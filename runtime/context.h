/*
 * The stack switch, and nothing else. One assembly file an architecture (context_x86_64.S,
 * context_aarch64.S).
 *
 * Only what the ABI makes callee-saved is kept. The switch leaves by a jump, not a return: the processor's
 * return predictor would be wrong every time (2.5 ns against 9 ns). The floating-point control words are not
 * switched: they belong to the worker.
 */
#ifndef WEFT_RUNTIME_CONTEXT_H
#define WEFT_RUNTIME_CONTEXT_H

/*
 * Save the callee-saved registers on the current stack, store the stack pointer in *save, continue at `load`
 * (a stack pointer stored earlier, or made by weft__context_make) and hand it `arg`: the switch that stored
 * `load` returns it; a new context gets it as the argument of its entry function.
 */
void *weft__context_switch(void **save, void *load, void *arg);

/*
 * Prepare a context at the upper end of a stack: `top` is the highest usable address (16-byte aligned). The
 * entry function must never return. Touches as little of the stack as the first frame needs.
 */
void *weft__context_make(void *top, void (*entry)(void *arg));

#endif
