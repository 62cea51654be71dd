/*
 * Has its kernel allocate and free, without end.
 */
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
	for (;;) {
		int ends[2];
		struct stat status;

		if (!pipe(ends)) {
			close(ends[0]);
			close(ends[1]);
		}
		stat("/init", &status);
	}
}
