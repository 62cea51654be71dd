/*
 * Somebody else's livepatch for Xen: it changes nothing, and is in the way of others as any is. Compiled with -c; before
 * it is loaded, `stamp` writes the running hypervisor's build id into it.
 */

	.macro note section, id
	.section \section, "a", @note
	.p2align 2
	.long 4, 20, 3
	.asciz "GNU"
	.ascii "\id"
	.endm

	/* Its own identity, and what it is for: twenty bytes each. */
	note .note.gnu.build-id, "neighbour's identity"
	note .livepatch.depends, "@build id goes here@"
	note .livepatch.xen_depends, "@build id goes here@"

	.text
	.p2align 4
	.globl neighbour_load
neighbour_load:
	endbr64
	ret

	/* Xen takes no payload that neither changes a function nor has a hook. */
	.section .livepatch.hooks.load, "a", @progbits
	.p2align 3
	.quad neighbour_load
