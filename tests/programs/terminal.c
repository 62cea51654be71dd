/*
 * A terminal that nobody looks at: runs a command on a pseudoterminal of its own, presses keys, and writes down what the
 * command writes, and when.
 *
 *     terminal COLUMNS ROWS OUT ORDERS COMMAND...
 *
 * ORDERS is a FIFO. Its lines are "keys TEXT", in which \r and \e are Enter and Esc; "mark TEXT", which is written down
 * at its place; and "signal NUMBER" for the command. OUT has a line "out MS LENGTH" before each piece of output, and
 * "mark MS TEXT". When the command has ended, its status is printed, and whether the terminal is as it was before.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

static long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void press(int terminal, const char *text)
{
	for (; *text; text++) {
		char key = *text;
		if (key == '\\' && text[1])
			key = *++text == 'r' ? '\r' : *text == 'e' ? 27 : *text;
		if (write(terminal, &key, 1) != 1)
			perror("a key could not be pressed");
	}
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: terminal COLUMNS ROWS OUT ORDERS COMMAND...\n");
		return 2;
	}
	struct winsize size = { .ws_col = atoi(argv[1]), .ws_row = atoi(argv[2]) };
	FILE *out = fopen(argv[3], "w");
	int orders = open(argv[4], O_RDWR | O_CLOEXEC);
	int terminal, other;
	if (!out || orders < 0 || openpty(&terminal, &other, NULL, NULL, &size)) {
		perror("terminal");
		return 2;
	}
	struct termios before = { 0 }, after = { 0 };
	tcgetattr(other, &before);
	long start = now_ms();
	pid_t child = fork();
	if (child == 0) {
		close(terminal);
		login_tty(other);
		execvp(argv[5], argv + 5);
		perror(argv[5]);
		_exit(127);
	}
	/* The other end stays open here: what is written last can still be read, and the settings too. */
	int status = 0, ended = 0;
	static char line[4096], bytes[65536];
	size_t filled = 0;
	for (;;) {
		/* Whoever waits for a text looks into it meanwhile. */
		fflush(out);
		struct pollfd ready[] = { { terminal, POLLIN, 0 }, { orders, POLLIN, 0 } };
		if (poll(ready, 2, 100) == 0) {
			if (ended)
				break;
			ended = waitpid(child, &status, WNOHANG) == child;
			continue;
		}
		if (ready[0].revents & POLLIN) {
			ssize_t length = read(terminal, bytes, sizeof(bytes));
			if (length > 0) {
				fprintf(out, "out %ld %zd\n", now_ms() - start, length);
				fwrite(bytes, 1, length, out);
				fputc('\n', out);
			}
			/* Where its cursor is, a terminal says when it is asked. */
			if (length > 0 && memmem(bytes, length, "\033[6n", 4))
				press(terminal, "\\e[1;1R");
		}
		char byte;
		if ((ready[1].revents & POLLIN) && read(orders, &byte, 1) == 1) {
			if (byte != '\n') {
				if (filled < sizeof(line) - 1)
					line[filled++] = byte;
				continue;
			}
			line[filled] = 0;
			filled = 0;
			if (!strncmp(line, "keys ", 5))
				press(terminal, line + 5);
			else if (!strncmp(line, "mark ", 5))
				fprintf(out, "mark %ld %s\n", now_ms() - start, line + 5);
			else if (!strncmp(line, "signal ", 7))
				kill(child, atoi(line + 7));
		}
	}
	tcgetattr(other, &after);
	fclose(out);
	printf("ended %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	int same = before.c_iflag == after.c_iflag && before.c_oflag == after.c_oflag &&
		before.c_cflag == after.c_cflag && before.c_lflag == after.c_lflag;
	printf("terminal %s\n", same ? "as before" : "changed");
	return 0;
}
