/*
 * A paravirtualized guest of Xen's that is a single loop: it asks for nothing and is told nothing, so that what Xen does on
 * its CPU is nearly all for somebody else.
 */
#define BASE 0xffffffff80000000

	/* What Xen's loader looks for (xen/include/public/elfnote.h). */
	.macro xen_note type, value:vararg
	.p2align 2
	.long 4, 2f - 1f, \type
	.asciz "Xen"
1:	\value
2:	.p2align 2
	.endm

	.section .note.Xen, "a", @note
	xen_note 1, .quad _start
	xen_note 3, .quad BASE
	xen_note 4, .quad BASE
	xen_note 5, .asciz "xen-3.0"
	xen_note 6, .asciz "spinner"
	xen_note 8, .asciz "generic"

	.text
	.globl _start
_start:
	inc %rax
	jmp _start
