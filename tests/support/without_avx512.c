/* Hides AVX-512 from the program that it is preloaded into (LD_PRELOAD), on processors that let a process trap its own
 * CPUID instructions (`cpuid_fault` in /proc/cpuinfo). What constructors and later code see is a processor with AVX2 and
 * FMA alone; the loader has asked before, for memcpy and the like. Emulates nothing: an AVX-512 instruction that is
 * executed without a question is executed. Ends the process with code 99 where the system refuses.
 *
 * Each CPUID raises SIGSEGV; the handler asks the processor, clears the bits, and goes on behind the instruction. Bits:
 * Intel's manual, volume 2A, CPUID, leaf 7.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (UINT32_C(1) << (n))

static void allow(int is_allowed) {
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, is_allowed) != 0) {
        _exit(99);
    }
}

static void say_once(void) {
    static const char line[] = "AVX-512 is hidden\n";
    static int is_said;
    if (!__atomic_exchange_n(&is_said, 1, __ATOMIC_RELAXED) && write(2, line, sizeof line - 1) < 0) {
        _exit(99);
    }
}

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *instruction = (const uint8_t *)registers[REG_RIP];
    (void)info;
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) {
        /* A real fault: it is raised again, and ends the process. */
        signal(signal_number, SIG_DFL);
        return;
    }
    uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
    uint32_t a = leaf, b = 0, c = part, d = 0;
    allow(1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    allow(0);
    if (leaf == 7 && part == 0) {
        /* F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS, VP2INTERSECT, AMX and FP16. */
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
        say_once();
    } else if (leaf == 7 && part == 1) {
        a = 0; /* BF16 and AVX-VNNI. */
        d &= ~BIT(19); /* AVX10. */
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

/* Before the constructors of other libraries, which ask (-z initfirst). Threads inherit it; a program that replaces this
 * one loads this library again. */
__attribute__((constructor)) static void hide(void) {
    struct sigaction action = {0};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    if (sigaction(SIGSEGV, &action, 0) != 0) {
        _exit(99);
    }
    allow(0);
}
