/*
 * Runs one command and reports what it cost.
 *
 * usage: rusage COMMAND [ARG ...]
 *
 * Prints on standard output: wall nanoseconds, user and system microseconds, peak resident KiB,
 * exit status (128 + n after signal n). The command's own standard output goes to /dev/null; its
 * standard error is ours.
 *
 * A program of its own, small and static, because a child's peak memory counts the memory of the
 * process it was spawned from (getrusage(2), ru_maxrss; posix_spawn shares it until the execve).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long micros(struct timeval t)
{
	return t.tv_sec * 1000000LL + t.tv_usec;
}

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t files;
	struct rusage used;
	int status, error;
	pid_t pid;

	if (argc < 2)
		return 2;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	long long start = now();
	error = posix_spawnp(&pid, argv[1], &files, NULL, argv + 1, environ);
	if (error) {
		fprintf(stderr, "rusage: %s: %s\n", argv[1], strerror(error));
		return 2;
	}
	if (wait4(pid, &status, 0, &used) < 0)
		return 2;
	long long wall = now() - start;
	printf("%lld %lld %lld %ld %d\n", wall, micros(used.ru_utime), micros(used.ru_stime),
	       used.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
