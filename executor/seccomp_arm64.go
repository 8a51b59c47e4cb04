package executor

var (
	native = abi{arch: 0xc00000b7 /* AUDIT_ARCH_AARCH64 */, calls: &callsARM64}
	compat = abi{arch: 0x40000028 /* AUDIT_ARCH_ARM */, calls: &callsARM}
)
