/*
 * Executes a command as root without some of root's capabilities.
 *
 *     without NUMBER[,NUMBER]... COMMAND...        the numbers are those of linux/capability.h
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: without NUMBER[,NUMBER]... COMMAND...\n");
		return 2;
	}
	for (char *rest = argv[1]; *rest;) {
		char *end;
		long number = strtol(rest, &end, 10);
		if (end == rest || prctl(PR_CAPBSET_DROP, number, 0, 0, 0)) {
			perror(rest);
			return 2;
		}
		rest = *end == ',' ? end + 1 : end;
	}
	/* What root executes has what is bounded. */
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 127;
}
