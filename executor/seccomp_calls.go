package executor

// The numbers of system calls, from the kernel's tables (arch/*/tools/syscall*.tbl,
// include/uapi/asm-generic/unistd.h). The constants of a Go package for one architecture are not
// enough: on amd64 the filter also needs the numbers for 386, and on arm64 the numbers for arm,
// because the same kernel runs such programs.

// deniedNew are denied calls that Linux 5.1 and later versions have added. They have the same
// numbers on all architectures.
var deniedNew = []uint32{
	425, // io_uring_setup
	426, // io_uring_enter
	427, // io_uring_register
	428, // open_tree
	429, // move_mount
	430, // fsopen
	431, // fsconfig
	432, // fsmount
	433, // fspick
	438, // pidfd_getfd
	440, // process_madvise
	442, // mount_setattr
	443, // quotactl_fd
	450, // set_mempolicy_home_node
	467, // open_tree_attr
}

// callClone3 is the number of clone3 on all architectures.
const callClone3 = 435

// callsAMD64 are the calls of x86-64.
var callsAMD64 = calls{
	denied: []uint32{
		103, // syslog
		134, // uselib
		136, // ustat
		139, // sysfs
		153, // vhangup
		155, // pivot_root
		156, // _sysctl
		163, // acct
		164, // settimeofday
		165, // mount
		166, // umount2
		167, // swapon
		168, // swapoff
		169, // reboot
		170, // sethostname
		171, // setdomainname
		172, // iopl
		173, // ioperm
		174, // create_module
		175, // init_module
		176, // delete_module
		177, // get_kernel_syms
		178, // query_module
		179, // quotactl
		180, // nfsservctl
		212, // lookup_dcookie
		227, // clock_settime
		237, // mbind
		238, // set_mempolicy
		239, // get_mempolicy
		246, // kexec_load
		248, // add_key
		249, // request_key
		250, // keyctl
		256, // migrate_pages
		272, // unshare
		279, // move_pages
		298, // perf_event_open
		300, // fanotify_init
		304, // open_by_handle_at
		308, // setns
		312, // kcmp
		313, // finit_module
		320, // kexec_file_load
		321, // bpf
		323, // userfaultfd
	},
	clone: 56, personality: 135, socket: 41,
}

// calls386 are the calls of 32-bit programs on x86-64.
var calls386 = calls{
	denied: []uint32{
		21,  // mount
		22,  // umount
		25,  // stime
		51,  // acct
		52,  // umount2
		62,  // ustat
		74,  // sethostname
		79,  // settimeofday
		86,  // uselib
		87,  // swapon
		88,  // reboot
		101, // ioperm
		103, // syslog
		110, // iopl
		111, // vhangup
		113, // vm86old
		115, // swapoff
		121, // setdomainname
		127, // create_module
		128, // init_module
		129, // delete_module
		130, // get_kernel_syms
		131, // quotactl
		135, // sysfs
		149, // _sysctl
		166, // vm86
		167, // query_module
		169, // nfsservctl
		217, // pivot_root
		253, // lookup_dcookie
		264, // clock_settime
		274, // mbind
		275, // get_mempolicy
		276, // set_mempolicy
		283, // kexec_load
		286, // add_key
		287, // request_key
		288, // keyctl
		294, // migrate_pages
		310, // unshare
		317, // move_pages
		336, // perf_event_open
		338, // fanotify_init
		342, // open_by_handle_at
		346, // setns
		349, // kcmp
		350, // finit_module
		357, // bpf
		374, // userfaultfd
		404, // clock_settime64
	},
	clone: 120, personality: 136, socket: 359,
}

// callsARM64 are the calls of 64-bit ARM.
var callsARM64 = calls{
	denied: []uint32{
		18,  // lookup_dcookie
		39,  // umount2
		40,  // mount
		41,  // pivot_root
		42,  // nfsservctl
		58,  // vhangup
		60,  // quotactl
		89,  // acct
		97,  // unshare
		104, // kexec_load
		105, // init_module
		106, // delete_module
		112, // clock_settime
		116, // syslog
		142, // reboot
		161, // sethostname
		162, // setdomainname
		170, // settimeofday
		217, // add_key
		218, // request_key
		219, // keyctl
		224, // swapon
		225, // swapoff
		235, // mbind
		236, // get_mempolicy
		237, // set_mempolicy
		238, // migrate_pages
		239, // move_pages
		241, // perf_event_open
		262, // fanotify_init
		265, // open_by_handle_at
		268, // setns
		272, // kcmp
		273, // finit_module
		280, // bpf
		282, // userfaultfd
		294, // kexec_file_load
	},
	clone: 220, personality: 92, socket: 198,
}

// callsARM are the calls of 32-bit programs on 64-bit ARM.
var callsARM = calls{
	denied: []uint32{
		21,  // mount
		51,  // acct
		52,  // umount2
		62,  // ustat
		74,  // sethostname
		79,  // settimeofday
		86,  // uselib
		87,  // swapon
		88,  // reboot
		103, // syslog
		111, // vhangup
		115, // swapoff
		121, // setdomainname
		128, // init_module
		129, // delete_module
		131, // quotactl
		135, // sysfs
		149, // _sysctl
		169, // nfsservctl
		218, // pivot_root
		249, // lookup_dcookie
		262, // clock_settime
		309, // add_key
		310, // request_key
		311, // keyctl
		319, // mbind
		320, // get_mempolicy
		321, // set_mempolicy
		337, // unshare
		344, // move_pages
		347, // kexec_load
		364, // perf_event_open
		367, // fanotify_init
		371, // open_by_handle_at
		375, // setns
		378, // kcmp
		379, // finit_module
		386, // bpf
		388, // userfaultfd
		400, // migrate_pages
		401, // kexec_file_load
		404, // clock_settime64
	},
	clone: 120, personality: 136, socket: 281,
}
