package executor

var (
	native = abi{arch: 0xc000003e /* AUDIT_ARCH_X86_64 */, calls: &callsAMD64, x32: true}
	compat = abi{arch: 0x40000003 /* AUDIT_ARCH_I386 */, calls: &calls386}
)
