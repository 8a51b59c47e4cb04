package executor

// The numbers of system calls, from the kernel's tables (arch/*/tools/syscall*.tbl,
// include/uapi/asm-generic/unistd.h). The constants of a Go package for one architecture are not
// enough: on amd64 the filter also needs the numbers for 386, and on arm64 the numbers for arm,
// because the same kernel runs such programs.

// deniedNew are denied calls that Linux 5.1 and later versions have added. They have the same
// numbers on all architectures.
var deniedNew = []deniedCall{
	{425, 0},            // io_uring_setup
	{426, 0},            // io_uring_enter
	{427, 0},            // io_uring_register
	{428, capSysAdmin},  // open_tree
	{429, capSysAdmin},  // move_mount
	{430, capSysAdmin},  // fsopen
	{431, capSysAdmin},  // fsconfig
	{432, capSysAdmin},  // fsmount
	{433, capSysAdmin},  // fspick
	{438, capSysPtrace}, // pidfd_getfd
	{440, capSysPtrace}, // process_madvise
	{442, capSysAdmin},  // mount_setattr
	{443, capSysAdmin},  // quotactl_fd
	{450, capSysNice},   // set_mempolicy_home_node
	{467, 0},            // open_tree_attr
}

// callClone3 is the number of clone3 on all architectures.
const callClone3 = 435

// callsAMD64 are the calls of x86-64.
var callsAMD64 = calls{
	denied: []deniedCall{
		{103, capSyslog | capSysAdmin},  // syslog
		{134, 0},                        // uselib
		{136, 0},                        // ustat
		{139, 0},                        // sysfs
		{153, capSysTTYConfig},          // vhangup
		{155, 0},                        // pivot_root
		{156, 0},                        // _sysctl
		{163, capSysPacct},              // acct
		{164, capSysTime},               // settimeofday
		{165, capSysAdmin},              // mount
		{166, capSysAdmin},              // umount2
		{167, 0},                        // swapon
		{168, 0},                        // swapoff
		{169, capSysBoot},               // reboot
		{170, capSysAdmin},              // sethostname
		{171, capSysAdmin},              // setdomainname
		{172, capSysRawio},              // iopl
		{173, capSysRawio},              // ioperm
		{174, 0},                        // create_module
		{175, capSysModule},             // init_module
		{176, capSysModule},             // delete_module
		{177, 0},                        // get_kernel_syms
		{178, 0},                        // query_module
		{179, capSysAdmin},              // quotactl
		{180, 0},                        // nfsservctl
		{212, capSysAdmin},              // lookup_dcookie
		{227, capSysTime},               // clock_settime
		{237, capSysNice},               // mbind
		{238, capSysNice},               // set_mempolicy
		{239, capSysNice},               // get_mempolicy
		{246, 0},                        // kexec_load
		{248, 0},                        // add_key
		{249, 0},                        // request_key
		{250, 0},                        // keyctl
		{256, 0},                        // migrate_pages
		{272, capSysAdmin},              // unshare
		{279, 0},                        // move_pages
		{298, capPerfmon | capSysAdmin}, // perf_event_open
		{300, capSysAdmin},              // fanotify_init
		{304, capDacReadSearch},         // open_by_handle_at
		{308, capSysAdmin},              // setns
		{312, capSysPtrace},             // kcmp
		{313, capSysModule},             // finit_module
		{320, 0},                        // kexec_file_load
		{321, capBPF | capSysAdmin},     // bpf
		{323, 0},                        // userfaultfd
	},
	clone: 56, personality: 135, socket: 41,
}

// calls386 are the calls of 32-bit programs on x86-64.
var calls386 = calls{
	denied: []deniedCall{
		{21, capSysAdmin},               // mount
		{22, capSysAdmin},               // umount
		{25, capSysTime},                // stime
		{51, capSysPacct},               // acct
		{52, capSysAdmin},               // umount2
		{62, 0},                         // ustat
		{74, capSysAdmin},               // sethostname
		{79, capSysTime},                // settimeofday
		{86, 0},                         // uselib
		{87, 0},                         // swapon
		{88, capSysBoot},                // reboot
		{101, capSysRawio},              // ioperm
		{103, capSyslog | capSysAdmin},  // syslog
		{110, capSysRawio},              // iopl
		{111, capSysTTYConfig},          // vhangup
		{113, 0},                        // vm86old
		{115, 0},                        // swapoff
		{121, capSysAdmin},              // setdomainname
		{127, 0},                        // create_module
		{128, capSysModule},             // init_module
		{129, capSysModule},             // delete_module
		{130, 0},                        // get_kernel_syms
		{131, capSysAdmin},              // quotactl
		{135, 0},                        // sysfs
		{149, 0},                        // _sysctl
		{166, 0},                        // vm86
		{167, 0},                        // query_module
		{169, 0},                        // nfsservctl
		{217, 0},                        // pivot_root
		{253, capSysAdmin},              // lookup_dcookie
		{264, capSysTime},               // clock_settime
		{274, capSysNice},               // mbind
		{275, capSysNice},               // get_mempolicy
		{276, capSysNice},               // set_mempolicy
		{283, 0},                        // kexec_load
		{286, 0},                        // add_key
		{287, 0},                        // request_key
		{288, 0},                        // keyctl
		{294, 0},                        // migrate_pages
		{310, capSysAdmin},              // unshare
		{317, 0},                        // move_pages
		{336, capPerfmon | capSysAdmin}, // perf_event_open
		{338, capSysAdmin},              // fanotify_init
		{342, capDacReadSearch},         // open_by_handle_at
		{346, capSysAdmin},              // setns
		{349, capSysPtrace},             // kcmp
		{350, capSysModule},             // finit_module
		{357, capBPF | capSysAdmin},     // bpf
		{374, 0},                        // userfaultfd
		{404, capSysTime},               // clock_settime64
	},
	clone: 120, personality: 136, socket: 359,
}

// callsARM64 are the calls of 64-bit ARM.
var callsARM64 = calls{
	denied: []deniedCall{
		{18, capSysAdmin},               // lookup_dcookie
		{39, capSysAdmin},               // umount2
		{40, capSysAdmin},               // mount
		{41, 0},                         // pivot_root
		{42, 0},                         // nfsservctl
		{58, capSysTTYConfig},           // vhangup
		{60, capSysAdmin},               // quotactl
		{89, capSysPacct},               // acct
		{97, capSysAdmin},               // unshare
		{104, 0},                        // kexec_load
		{105, capSysModule},             // init_module
		{106, capSysModule},             // delete_module
		{112, capSysTime},               // clock_settime
		{116, capSyslog | capSysAdmin},  // syslog
		{142, capSysBoot},               // reboot
		{161, capSysAdmin},              // sethostname
		{162, capSysAdmin},              // setdomainname
		{170, capSysTime},               // settimeofday
		{217, 0},                        // add_key
		{218, 0},                        // request_key
		{219, 0},                        // keyctl
		{224, 0},                        // swapon
		{225, 0},                        // swapoff
		{235, capSysNice},               // mbind
		{236, capSysNice},               // get_mempolicy
		{237, capSysNice},               // set_mempolicy
		{238, 0},                        // migrate_pages
		{239, 0},                        // move_pages
		{241, capPerfmon | capSysAdmin}, // perf_event_open
		{262, capSysAdmin},              // fanotify_init
		{265, capDacReadSearch},         // open_by_handle_at
		{268, capSysAdmin},              // setns
		{272, capSysPtrace},             // kcmp
		{273, capSysModule},             // finit_module
		{280, capBPF | capSysAdmin},     // bpf
		{282, 0},                        // userfaultfd
		{294, 0},                        // kexec_file_load
	},
	clone: 220, personality: 92, socket: 198,
}

// callsARM are the calls of 32-bit programs on 64-bit ARM.
var callsARM = calls{
	denied: []deniedCall{
		{21, capSysAdmin},               // mount
		{51, capSysPacct},               // acct
		{52, capSysAdmin},               // umount2
		{62, 0},                         // ustat
		{74, capSysAdmin},               // sethostname
		{79, capSysTime},                // settimeofday
		{86, 0},                         // uselib
		{87, 0},                         // swapon
		{88, capSysBoot},                // reboot
		{103, capSyslog | capSysAdmin},  // syslog
		{111, capSysTTYConfig},          // vhangup
		{115, 0},                        // swapoff
		{121, capSysAdmin},              // setdomainname
		{128, capSysModule},             // init_module
		{129, capSysModule},             // delete_module
		{131, capSysAdmin},              // quotactl
		{135, 0},                        // sysfs
		{149, 0},                        // _sysctl
		{169, 0},                        // nfsservctl
		{218, 0},                        // pivot_root
		{249, capSysAdmin},              // lookup_dcookie
		{262, capSysTime},               // clock_settime
		{309, 0},                        // add_key
		{310, 0},                        // request_key
		{311, 0},                        // keyctl
		{319, capSysNice},               // mbind
		{320, capSysNice},               // get_mempolicy
		{321, capSysNice},               // set_mempolicy
		{337, capSysAdmin},              // unshare
		{344, 0},                        // move_pages
		{347, 0},                        // kexec_load
		{364, capPerfmon | capSysAdmin}, // perf_event_open
		{367, capSysAdmin},              // fanotify_init
		{371, capDacReadSearch},         // open_by_handle_at
		{375, capSysAdmin},              // setns
		{378, capSysPtrace},             // kcmp
		{379, capSysModule},             // finit_module
		{386, capBPF | capSysAdmin},     // bpf
		{388, 0},                        // userfaultfd
		{400, 0},                        // migrate_pages
		{401, 0},                        // kexec_file_load
		{404, capSysTime},               // clock_settime64
	},
	clone: 120, personality: 136, socket: 281,
}
