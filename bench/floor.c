/*
 * The physical limit: only the kernel work that a container asks for, with nothing read, parsed,
 * saved or checked. A runtime cannot be faster than this; how close it comes is the measure.
 *
 * usage: floor run [-d] [-s FILTER] [-b COUNT] ROOTFS    run /bin/true in the default bundle
 *        floor exec PID CGROUP                          run /bin/true inside a running container
 *        floor hold                                     keep a cgroup with a device filter
 *
 * "hold" says "." when the filter is attached, and ends when its standard input does.
 *
 *   -d         load and attach a cgroup device filter (the default bundle denies all devices)
 *   -s FILTER  install a file of struct sock_filter as the seccomp filter
 *   -b COUNT   bind the directory /data of the root file system COUNT times, onto /mnt/0, /mnt/1 ...
 *
 * The default bundle is the one that `runc spec` writes. /sys/fs/cgroup must be cgroup v2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE: what the default bundle keeps. */
#define KEPT ((1u << 5) | (1u << 10) | (1u << 29))

#define CHECK(call)                                                                   \
	do {                                                                          \
		if ((call) < 0) {                                                     \
			dprintf(2, "floor: %s: %s\n", #call, strerror(errno));        \
			_exit(1);                                                     \
		}                                                                     \
	} while (0)

static struct sock_fprog filter;
static int binds;

static void make_device(const char *path, int major, int minor)
{
	CHECK(mknod(path, S_IFCHR | 0666, makedev(major, minor)));
}

static void mount_all(const char *root)
{
	CHECK(mount("", "/", 0, MS_REC | MS_SLAVE, 0));
	CHECK(mount(root, root, 0, MS_BIND | MS_REC, 0));
	CHECK(chdir(root));
	umask(0);
	CHECK(mount("proc", "proc", "proc", 0, 0));
	CHECK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
	CHECK(mkdir("dev/pts", 0755));
	CHECK(mkdir("dev/shm", 0755));
	CHECK(mkdir("dev/mqueue", 0755));
	CHECK(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		    "newinstance,ptmxmode=0666,mode=0620,gid=5"));
	CHECK(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV,
		    "mode=1777,size=65536k"));
	CHECK(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0));
	CHECK(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0));
	CHECK(mount("cgroup", "sys/fs/cgroup", "cgroup2",
		    MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME | MS_RDONLY, 0));
	for (int i = 0; i < binds; i++) {
		char target[32];
		snprintf(target, sizeof target, "mnt/%d", i);
		CHECK(mount("data", target, 0, MS_BIND | MS_REC, 0));
	}
	make_device("dev/null", 1, 3);
	make_device("dev/zero", 1, 5);
	make_device("dev/full", 1, 7);
	make_device("dev/random", 1, 8);
	make_device("dev/urandom", 1, 9);
	make_device("dev/tty", 5, 0);
	CHECK(symlink("/proc/self/fd", "dev/fd"));
	CHECK(symlink("/proc/self/fd/0", "dev/stdin"));
	CHECK(symlink("/proc/self/fd/1", "dev/stdout"));
	CHECK(symlink("/proc/self/fd/2", "dev/stderr"));
	CHECK(symlink("pts/ptmx", "dev/ptmx"));
	umask(022);
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", MNT_DETACH));
	CHECK(chdir("/"));
}

/* What a path hides or holds read-only is skipped when this kernel does not have it. */
static void hide(void)
{
	static const char *readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
					  "/proc/sysrq-trigger" };
	static const char *files[] = { "/proc/kcore", "/proc/keys", "/proc/timer_list",
				       "/proc/latency_stats", "/proc/sched_debug" };
	static const char *dirs[] = { "/proc/acpi", "/proc/scsi", "/sys/firmware" };

	for (int i = 0; i < 5; i++) {
		if (mount(readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0) < 0)
			continue;
		CHECK(mount(0, readonly[i], 0,
			    MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
	}
	for (int i = 0; i < 5; i++)
		mount("/dev/null", files[i], 0, MS_BIND, 0);
	for (int i = 0; i < 3; i++)
		mount("tmpfs", dirs[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1");
	CHECK(mount(0, "/", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0));
}

static void drop_privileges(void)
{
	struct rlimit files = { 1024, 1024 };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = { { KEPT, KEPT, KEPT }, { 0, 0, 0 } };

	CHECK(setrlimit(RLIMIT_NOFILE, &files));
	for (int cap = 0; cap <= 40; cap++)
		if (cap > 31 || !(KEPT & (1u << cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	CHECK(syscall(SYS_capset, &header, sets));
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (filter.len)
		CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

static void execute(void)
{
	char *args[] = { "/bin/true", 0 }, *env[] = { "PATH=/bin", 0 };

	syscall(SYS_close_range, 3, ~0U, 0);
	CHECK(execve(args[0], args, env));
}

/* "Deny everything" is what the bundle says; the smallest program that can be attached. */
static void attach_device_filter(int cgroup)
{
	struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insns = (unsigned long)program,
		.insn_cnt = 2,
		.license = (unsigned long)"GPL",
	};
	int fd = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
	CHECK(fd);
	union bpf_attr attach = {
		.target_fd = cgroup,
		.attach_bpf_fd = fd,
		.attach_type = BPF_CGROUP_DEVICE,
		.attach_flags = BPF_F_ALLOW_MULTI,
	};
	CHECK(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
	close(fd);
}

static int reap(pid_t pid)
{
	int status;
	CHECK(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *root, int devices)
{
	char path[64];
	snprintf(path, sizeof path, "/sys/fs/cgroup/floor%d", getpid());
	CHECK(mkdir(path, 0755));
	int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(cgroup);
	if (devices)
		attach_device_filter(cgroup);
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
			 CLONE_NEWCGROUP | CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup,
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof args);
	CHECK(pid);
	if (pid == 0) {
		CHECK(setsid());
		mount_all(root);
		hide();
		CHECK(sethostname("runc", 4));
		drop_privileges();
		execute();
	}
	int status = reap(pid);
	while (rmdir(path) < 0 && errno == EBUSY)
		usleep(50);
	return status;
}

static int hold(void)
{
	char path[64], byte;
	snprintf(path, sizeof path, "/sys/fs/cgroup/keelbench-hold%d", getpid());
	CHECK(mkdir(path, 0755));
	int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(cgroup);
	attach_device_filter(cgroup);
	CHECK(write(1, ".", 1));
	while (read(0, &byte, 1) > 0)
		;
	CHECK(rmdir(path));
	return 0;
}

static int exec_in(pid_t target, const char *path)
{
	int pidfd = syscall(SYS_pidfd_open, target, 0);
	CHECK(pidfd);
	int cgroup = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CHECK(cgroup);
	CHECK(setns(pidfd, CLONE_NEWPID));
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = cgroup
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof args);
	CHECK(pid);
	if (pid == 0) {
		CHECK(setsid());
		CHECK(setns(pidfd, CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
					   CLONE_NEWCGROUP));
		drop_privileges();
		execute();
	}
	return reap(pid);
}

static void load_filter(const char *path)
{
	static struct sock_filter program[BPF_MAXINSNS];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd);
	ssize_t bytes = read(fd, program, sizeof program);
	CHECK(bytes);
	close(fd);
	filter.len = bytes / sizeof program[0];
	filter.filter = program;
}

int main(int argc, char **argv)
{
	int devices = 0, option;

	if (argc == 4 && !strcmp(argv[1], "exec"))
		return exec_in(atoi(argv[2]), argv[3]);
	if (argc == 2 && !strcmp(argv[1], "hold"))
		return hold();
	if (argc < 3 || strcmp(argv[1], "run"))
		goto usage;
	argc--;
	argv++;
	while ((option = getopt(argc, argv, "ds:b:")) != -1) {
		switch (option) {
		case 'd':
			devices = 1;
			break;
		case 's':
			load_filter(optarg);
			break;
		case 'b':
			binds = atoi(optarg);
			break;
		default:
			goto usage;
		}
	}
	if (optind + 1 == argc)
		return run(argv[optind], devices);
usage:
	dprintf(2, "usage: floor run [-d] [-s FILTER] [-b COUNT] ROOTFS | floor exec PID CGROUP | "
		   "floor hold\n");
	return 2;
}
