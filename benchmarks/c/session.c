// SPDX-License-Identifier: Apache-2.0
/*
 * Maps 4 KiB of a memfd into an address space of /dev/iommu and unmaps them, over and over.
 *
 * For each line on stdin: one run of as many pairs as the argument says, and a line "nanoseconds" on stdout.
 * The structures are those of linux/iommufd.h, which is newer than what many a compiler has.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define IOVA (16ul << 20)
#define IOAS_ALLOC _IO(';', 0x81)
#define IOAS_UNMAP _IO(';', 0x86)
#define IOAS_MAP_FILE _IO(';', 0x8f)
#define FIXED_WRITEABLE_READABLE 7

struct ioas_alloc {
	uint32_t size, flags, out_ioas_id;
};

struct ioas_map_file {
	uint32_t size, flags, ioas_id;
	int32_t fd;
	uint64_t start, length, iova;
};

struct ioas_unmap {
	uint32_t size, ioas_id;
	uint64_t iova, length;
};

_Static_assert(sizeof(struct ioas_map_file) == 40 && sizeof(struct ioas_unmap) == 24, "as in linux/iommufd.h");

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	long pairs = argc > 1 ? atol(argv[1]) : 0;
	int fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	int memory = memfd_create("benchmark", MFD_CLOEXEC);

	if (fd < 0 || memory < 0 || ftruncate(memory, PAGE) || ioctl(fd, IOAS_ALLOC, &alloc))
		return fail("/dev/iommu");
	while (getchar() != EOF) {
		struct timespec start, end;

		clock_gettime(CLOCK_MONOTONIC, &start);
		for (long pair = 0; pair < pairs; pair++) {
			struct ioas_map_file map = {
				.size = sizeof(map),
				.flags = FIXED_WRITEABLE_READABLE,
				.ioas_id = alloc.out_ioas_id,
				.fd = memory,
				.length = PAGE,
				.iova = IOVA,
			};
			struct ioas_unmap unmap = {
				.size = sizeof(unmap),
				.ioas_id = alloc.out_ioas_id,
				.iova = IOVA,
				.length = PAGE,
			};

			if (ioctl(fd, IOAS_MAP_FILE, &map) || ioctl(fd, IOAS_UNMAP, &unmap) || unmap.length != PAGE)
				return fail("map and unmap");
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		printf("%lld\n", (end.tv_sec - start.tv_sec) * 1000000000ll + end.tv_nsec - start.tv_nsec);
		fflush(stdout);
	}
	return 0;
}
