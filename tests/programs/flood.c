/*
 * Sends datagrams to everybody on a network, as many as go through, for ever.
 *
 *     flood ADDRESS        the network's address for all, 10.0.0.255
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: flood ADDRESS\n");
		return 2;
	}
	static char bytes[1024];
	struct sockaddr_in everybody = { .sin_family = AF_INET, .sin_port = htons(9) };
	int end = socket(AF_INET, SOCK_DGRAM, 0), yes = 1;
	setsockopt(end, SOL_SOCKET, SO_BROADCAST, &yes, sizeof(yes));
	if (inet_pton(AF_INET, argv[1], &everybody.sin_addr) != 1) {
		fprintf(stderr, "flood: %s is no address\n", argv[1]);
		return 2;
	}
	for (;;)
		sendto(end, bytes, sizeof(bytes), 0, (struct sockaddr *)&everybody, sizeof(everybody));
}
