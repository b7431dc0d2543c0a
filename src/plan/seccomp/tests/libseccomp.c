/* Compiles profiles with libseccomp as runc does, for the comparison in oracles.rs.
 *
 * Standard input, one word after the other:
 *   name NAME               -> "1" if libseccomp has a number for it in all ABIs of x86, else "0"
 *   begin DEFAULT           a filter with this default action
 *   arch TOKEN              one more architecture (SCMP_ARCH_*)
 *   rule ACTION NAME N {INDEX OP A B}*N
 *   end                     -> the number of instructions, then each as "code jt jf k"
 * All numbers are decimal; any failure answers "error WHERE ERRNO" in place of the program.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void answer(scmp_filter_ctx filter)
{
	struct sock_filter insns[4096];
	FILE *file = tmpfile();
	int rc = file ? seccomp_export_bpf(filter, fileno(file)) : -errno;
	if (rc) {
		printf("error export %d\n", rc);
	} else {
		size_t count;
		lseek(fileno(file), 0, SEEK_SET);
		ssize_t bytes = read(fileno(file), insns, sizeof(insns));
		count = bytes < 0 ? 0 : (size_t)bytes / sizeof(insns[0]);
		printf("%zu", count);
		for (size_t i = 0; i < count; i++)
			printf(" %u %u %u %" PRIu32, insns[i].code, insns[i].jt, insns[i].jf, insns[i].k);
		printf("\n");
	}
	if (file)
		fclose(file);
}

int main(void)
{
	char word[64], name[64];
	scmp_filter_ctx filter = NULL;
	const char *failed = NULL;
	int rc = 0;

	/* Some sets of rules keep libseccomp busy for ever. */
	alarm(600);
	while (scanf("%63s", word) == 1) {
		uint32_t number;
		if (!strcmp(word, "name") && scanf("%63s", name) == 1) {
			printf("%d\n", seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name) >= 0 &&
				       seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86, name) >= 0 &&
				       seccomp_syscall_resolve_name_arch(SCMP_ARCH_X32, name) >= 0);
		} else if (!strcmp(word, "begin") && scanf("%" SCNu32, &number) == 1) {
			failed = NULL;
			filter = seccomp_init(number);
			rc = filter ? seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH,
						       SCMP_ACT_KILL_PROCESS) : -ENOMEM;
			if (rc)
				failed = "begin";
		} else if (!strcmp(word, "arch") && scanf("%" SCNu32, &number) == 1) {
			rc = seccomp_arch_add(filter, number);
			if (rc && rc != -EEXIST)
				failed = "arch";
		} else if (!strcmp(word, "rule")) {
			struct scmp_arg_cmp args[6];
			unsigned count;
			if (scanf("%" SCNu32 " %63s %u", &number, name, &count) != 3 || count > 6)
				return 1;
			for (unsigned i = 0; i < count; i++) {
				unsigned op;
				memset(&args[i], 0, sizeof(args[i]));
				if (scanf("%u %u %" SCNu64 " %" SCNu64, &args[i].arg, &op,
					  &args[i].datum_a, &args[i].datum_b) != 4)
					return 1;
				args[i].op = op;
			}
			rc = seccomp_rule_add_array(filter, number,
						    seccomp_syscall_resolve_name(name), count, args);
			if (rc)
				failed = "rule";
		} else if (!strcmp(word, "end")) {
			if (failed)
				printf("error %s %d\n", failed, rc);
			else
				answer(filter);
			seccomp_release(filter);
		} else {
			return 1;
		}
		fflush(stdout);
	}
	return 0;
}
