/*
 * Has a QEMU do something, by its monitor's protocol (QMP), and prints what it answers.
 *
 *     qmp SOCKET COMMAND [ARGUMENTS]
 *
 * ARGUMENTS is a JSON object. An error ends with status 1.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Reads messages up to an answer: what happens meanwhile is told between. Returns whether it is no error. */
static int answer(FILE *from, int shown)
{
	static char line[1 << 16];
	while (fgets(line, sizeof(line), from)) {
		int ok = !strncmp(line, "{\"return\"", 9);
		if (!ok && strncmp(line, "{\"error\"", 8) && !strstr(line, "\"error\": {"))
			continue;
		if (shown)
			fputs(line, stdout);
		return ok;
	}
	fprintf(stderr, "qmp: no answer\n");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: qmp SOCKET COMMAND [ARGUMENTS]\n");
		return 2;
	}
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
	int connection = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(connection, (struct sockaddr *)&address, sizeof(address))) {
		perror(argv[1]);
		return 1;
	}
	FILE *from = fdopen(connection, "r"), *to = fdopen(dup(connection), "w");
	if (!from || !to)
		return 1;
	fprintf(to, "{\"execute\": \"qmp_capabilities\"}\n");
	fflush(to);
	if (!answer(from, 0))
		return 1;
	fprintf(to, "{\"execute\": \"%s\", \"arguments\": %s}\n", argv[2], argc > 3 ? argv[3] : "{}");
	fflush(to);
	return !answer(from, 1);
}
