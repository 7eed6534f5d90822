/* Keeps freeDiameter on the loopback: loaded before it (LD_PRELOAD), every listener binds 127.0.0.1.
 *
 * freeDiameter refuses loopback addresses in ListenOn and then binds 0.0.0.0. The test's configuration therefore names
 * an address for documentation (RFC 5737), which no machine has: should this file not be loaded, nothing listens. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
	static int (*bind_of_libc)(int, const struct sockaddr *, socklen_t);
	struct sockaddr_in loopback;

	if (bind_of_libc == NULL)
		bind_of_libc = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
	if (address->sa_family != AF_INET || length < sizeof loopback)
		return bind_of_libc(descriptor, address, length);
	memcpy(&loopback, address, sizeof loopback);
	loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return bind_of_libc(descriptor, (struct sockaddr *)&loopback, sizeof loopback);
}
