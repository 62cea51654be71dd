/*
 * stamp FILE HEXADECIMAL: writes a build id over each place in a file that waits for one.
 */
#include <stdio.h>
#include <string.h>

#define BYTES 20
static const char waiting[BYTES + 1] = "@build id goes here@";

int main(int count, char **arguments)
{
	static char content[1 << 20];
	char id[BYTES];
	int stamped = 0;

	if (count != 3 || strlen(arguments[2]) != 2 * BYTES)
		return 2;
	for (int i = 0; i < BYTES; i++)
		if (sscanf(arguments[2] + 2 * i, "%2hhx", &id[i]) != 1)
			return 2;
	FILE *file = fopen(arguments[1], "r+b");
	if (!file) {
		perror(arguments[1]);
		return 1;
	}
	size_t length = fread(content, 1, sizeof content, file);
	for (size_t at = 0; at + BYTES <= length; at++) {
		if (memcmp(content + at, waiting, BYTES))
			continue;
		fseek(file, at, SEEK_SET);
		fwrite(id, 1, BYTES, file);
		stamped++;
	}
	if (fclose(file)) {
		perror(arguments[1]);
		return 1;
	}
	return stamped ? 0 : 1;
}
