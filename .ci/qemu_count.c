/* A plugin of qemu that counts the instructions of a program and prints their number.

       cc -shared -fPIC -o qemu_count.so qemu_count.c && qemu-aarch64 -plugin qemu_count.so PROGRAM

   Debian has no package with the header of the plugin interface, so what is needed of it is declared here. */

#include <inttypes.h>
#include <stdio.h>

struct qemu_plugin_tb; /* a translated block: instructions that run one after the other */

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, void (*translated)(uint64_t plugin, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*runs)(unsigned cpu, void *data), int flags,
                                          void *data);
void qemu_plugin_register_atexit_cb(uint64_t plugin, void (*ends)(uint64_t plugin, void *data), void *data);

int qemu_plugin_version = 1; /* of the interface: qemu 5 to 8 have it; later ones want another number here */

static uint64_t count;

static void runs(unsigned cpu, void *length) {
    (void)cpu;
    count += (uintptr_t)length;
}

static void translated(uint64_t plugin, struct qemu_plugin_tb *block) {
    (void)plugin;
    qemu_plugin_register_vcpu_tb_exec_cb(block, runs, 0, (void *)qemu_plugin_tb_n_insns(block));
}

static void ends(uint64_t plugin, void *data) {
    (void)plugin, (void)data;
    fprintf(stderr, "Collected : %" PRIu64 "\n", count);
}

int qemu_plugin_install(uint64_t plugin, const void *info, int count_of_arguments, char **arguments) {
    (void)info, (void)count_of_arguments, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
    qemu_plugin_register_atexit_cb(plugin, ends, NULL);
    return 0;
}
