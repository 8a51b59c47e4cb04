package main

import (
	"strings"

	"github.com/spf13/pflag"
)

// Reasons that several flags of run have.
const (
	noRecord = "the container ends with layerbuild, and nothing refers to it"
	noHealth = "the health of the container is not checked"
	noDetach = "the container ends with layerbuild; start it with systemd-run, or with & in a " +
		"shell"
	noOthers    = "there are no other containers"
	noVolumes   = "there are no volumes with names; give the directory: --volume DIR:TARGET"
	hostNetwork = "the command uses the network of this machine, with its addresses and names"
	hostPorts   = "the command uses the network of this machine, where its ports keep their " +
		"numbers"
	ownHosts    = "the command gets an /etc/hosts with the names of --add-host"
	ownPasswd   = "the files /etc/passwd and /etc/group are those of the image"
	onlyWindows = "it is an option for containers of Windows"
	noMonitor   = "there is no conmon; the process to watch is layerbuild"
)

// runOthers are the flags of docker run and podman run that have no effect, or are refused, in the
// order of their names. Together with the flags that runVerb defines they are all flags of both.
var runOthers = [...]otherFlag{
	{name: "annotation", value: "KEY=VALUE", why: noRecord},
	{name: "arch", value: "ARCH", effect: refused, why: onePlatform},
	{name: "attach", short: "a", value: "STREAM", check: stream,
		why: "the command has the output and the error output of layerbuild; --interactive " +
			"passes its input, too"},
	{name: "blkio-weight", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "blkio-weight-device", value: "DEVICE:N", effect: noted, why: noLimits},
	{name: "cgroup-conf", value: "KEY=VALUE", effect: noted, why: noLimits},
	{name: "cgroup-parent", value: "NAME", effect: noted,
		why: "the command runs in the control group of layerbuild"},
	{name: "cgroupns", value: "WHICH", effect: refused, harmless: []string{"", "private"},
		why: ownNamespaces},
	{name: "cgroups", value: "MODE", why: "the command runs in the control group of layerbuild",
		check: oneOf("enabled", "disabled", "no-conmon", "split")},
	{name: "chrootdirs", value: "DIR", effect: refused,
		why: "only the root of the container gets /etc/hosts and /etc/resolv.conf; give --volume " +
			"FILE:DIR/etc/hosts"},
	{name: "cidfile", value: "FILE", effect: refused,
		why: "a container has no ID; to stop it, send SIGTERM to layerbuild"},
	{name: "conmon-pidfile", value: "FILE", effect: refused, why: noMonitor},
	{name: "cpu-count", value: "N", why: onlyWindows, check: wholeNumber},
	{name: "cpu-percent", value: "N", why: onlyWindows, check: wholeNumber},
	{name: "cpu-period", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpu-quota", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpu-rt-period", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpu-rt-runtime", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpu-shares", short: "c", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpus", value: "N", effect: noted, why: noLimits, check: number},
	{name: "cpuset-cpus", value: "LIST", effect: noted, why: noLimits},
	{name: "cpuset-mems", value: "LIST", effect: noted, why: noLimits},
	{name: "decryption-key", value: "KEY", effect: refused,
		why: "layerbuild does not read encrypted layers"},
	{name: "detach", short: "d", effect: refused, harmless: isFalse, why: noDetach},
	{name: "detach-keys", value: "KEYS", why: "a container cannot be detached"},
	{name: "device-cgroup-rule", value: "RULE",
		why: "no control group limits the devices of the command"},
	{name: "device-read-bps", value: "DEVICE:N", effect: noted, why: noLimits},
	{name: "device-read-iops", value: "DEVICE:N", effect: noted, why: noLimits},
	{name: "device-write-bps", value: "DEVICE:N", effect: noted, why: noLimits},
	{name: "device-write-iops", value: "DEVICE:N", effect: noted, why: noLimits},
	{name: "disable-content-trust", effect: refused, harmless: isTrue,
		why: "layerbuild does not check signatures; name images by digest"},
	{name: "domainname", value: "NAME", effect: refused,
		why: "a container has no NIS domain; give --hostname NAME.DOMAIN for a whole name"},
	{name: "env-merge", value: "NAME=VALUE", effect: refused,
		why: "a value cannot refer to variables of the image; give --env NAME=VALUE with the " +
			"whole value"},
	{name: "expose", value: "PORT", why: hostPorts},
	{name: "gidmap", value: "MAP", effect: refused, why: subordinate},
	{name: "group-entry", value: "ENTRY", effect: refused, why: ownPasswd},
	{name: "health-cmd", value: "COMMAND", why: noHealth},
	{name: "health-interval", value: "TIME", why: noHealth},
	{name: "health-log-destination", value: "PLACE", why: noHealth},
	{name: "health-max-log-count", value: "N", why: noHealth, check: wholeNumber},
	{name: "health-max-log-size", value: "N", why: noHealth, check: wholeNumber},
	{name: "health-on-failure", value: "ACTION", effect: refused, harmless: []string{"none"},
		why: noHealth},
	{name: "health-retries", value: "N", why: noHealth, check: wholeNumber},
	{name: "health-start-interval", value: "TIME", why: noHealth},
	{name: "health-start-period", value: "TIME", why: noHealth},
	{name: "health-startup-cmd", value: "COMMAND", why: noHealth},
	{name: "health-startup-interval", value: "TIME", why: noHealth},
	{name: "health-startup-retries", value: "N", why: noHealth, check: wholeNumber},
	{name: "health-startup-success", value: "N", why: noHealth, check: wholeNumber},
	{name: "health-startup-timeout", value: "TIME", why: noHealth},
	{name: "health-timeout", value: "TIME", why: noHealth},
	{name: "hosts-file", value: "FILE", effect: refused,
		why: ownHosts + "; give --volume FILE:/etc/hosts:ro for another one"},
	{name: "hostuser", value: "NAME", effect: refused, why: ownPasswd},
	{name: "http-proxy", effect: noted, harmless: isFalse,
		why: "commands do not get the proxies of the environment; give --env HTTP_PROXY and the " +
			"like"},
	{name: "image-volume", value: "MODE",
		why:   "the directories of VOLUME are part of the container, and removed with it",
		check: oneOf("anonymous", "bind", "tmpfs", "ignore")},
	{name: "init-path", value: "FILE", why: "the command is never process 1"},
	{name: "io-maxbandwidth", value: "SIZE", why: onlyWindows, check: size},
	{name: "io-maxiops", value: "N", why: onlyWindows, check: wholeNumber},
	{name: "ip", value: "ADDRESS", effect: refused, why: hostNetwork},
	{name: "ip6", value: "ADDRESS", effect: refused, why: hostNetwork},
	{name: "ipc", value: "WHICH", effect: refused, harmless: []string{"", "private", "shareable"},
		why: ownNamespaces},
	{name: "isolation", value: "KIND", effect: refused, harmless: []string{"", "default"},
		why: "layerbuild runs commands in namespaces, and in no other way"},
	{name: "kernel-memory", value: "SIZE", effect: noted, why: noLimits, check: size},
	{name: "label", short: "l", value: "KEY=VALUE", why: noRecord},
	{name: "label-file", value: "FILE", why: noRecord},
	{name: "link", value: "CONTAINER", effect: refused, why: noOthers},
	{name: "link-local-ip", value: "ADDRESS", effect: refused, why: hostNetwork},
	{name: "log-driver", value: "DRIVER", effect: noted,
		harmless: []string{"json-file", "k8s-file", "local", "none", "passthrough",
			"passthrough-tty"},
		why: "what the command prints goes to standard output and standard error only"},
	{name: "log-opt", value: "NAME=VALUE", why: "it changes only --log-driver"},
	{name: "mac-address", value: "ADDRESS", effect: refused, why: hostNetwork},
	{name: "memory", short: "m", value: "SIZE", effect: noted, why: noLimits, check: size},
	{name: "memory-reservation", value: "SIZE", effect: noted, why: noLimits, check: size},
	{name: "memory-swap", value: "SIZE", effect: noted, why: noLimits, check: size},
	{name: "memory-swappiness", value: "N", effect: noted, harmless: []string{"-1"}, why: noLimits,
		check: wholeNumber},
	{name: "network-alias", value: "NAME", effect: refused, why: hostNetwork},
	{name: "no-healthcheck", why: noHealth},
	{name: "no-hostname", why: ownHostname},
	{name: "no-hosts", effect: refused, harmless: isFalse,
		why: ownHosts + "; give --volume FILE:/etc/hosts:ro for another one"},
	{name: "oom-kill-disable", effect: noted, harmless: isFalse, why: noLimits},
	{name: "oom-score-adj", value: "N", effect: noted, check: wholeNumber,
		why: "the command has the score of layerbuild; start it with choom -n N --"},
	{name: "os", value: "OS", effect: refused, why: onePlatform},
	{name: "passwd", why: ownPasswd},
	{name: "passwd-entry", value: "ENTRY", effect: refused, why: ownPasswd},
	{name: "personality", value: "KIND", effect: refused,
		why: "the command has the personality of layerbuild; start it with setarch"},
	{name: "pid", value: "WHICH", effect: refused, harmless: []string{"", "private"},
		why: ownNamespaces},
	{name: "pidfile", value: "FILE", effect: refused, why: noMonitor},
	{name: "pids-limit", value: "N", effect: noted, harmless: []string{"-1", "0"}, why: noLimits,
		check: wholeNumber},
	{name: "pod", value: "NAME", effect: refused, why: noOthers},
	{name: "pod-id-file", value: "FILE", effect: refused, why: noOthers},
	{name: "preserve-fd", value: "N", effect: refused,
		why: "the command gets no descriptors but its standard streams; give --interactive"},
	{name: "preserve-fds", value: "N", effect: refused, harmless: []string{"0"},
		why: "the command gets no descriptors but its standard streams; give --interactive"},
	{name: "publish-all", short: "P", why: hostPorts},
	{name: "rdt-class", value: "NAME", effect: noted, why: noLimits},
	{name: "read-only-tmpfs", effect: refused, harmless: isFalse,
		why: "--read-only mounts nothing; give --tmpfs /tmp --tmpfs /run --tmpfs /var/tmp"},
	{name: "replace", why: "a container is always removed when its command ends"},
	{name: "requires", value: "CONTAINER", effect: refused, why: noOthers},
	{name: "restart", value: "POLICY", effect: refused, harmless: []string{"no", "never"},
		why: "the container ends with its command; have systemd restart layerbuild, with " +
			"Restart= in a unit"},
	{name: "retry", value: "N", why: ownRetries, check: wholeNumber},
	{name: "retry-delay", value: "TIME", why: ownRetries},
	{name: "rmi", effect: refused, harmless: isFalse, why: "remove the name of the image with " +
		"layerbuild rm"},
	{name: "rootfs", effect: refused, harmless: isFalse,
		why: "an image is expected; FROM scratch and COPY . / make one of a directory"},
	{name: "runtime", value: "PROGRAM", why: ownRuntime},
	{name: "sdnotify", value: "MODE", effect: refused, harmless: []string{"ignore"},
		why: "layerbuild does not notify systemd; give Type=exec in the unit"},
	{name: "seccomp-policy", value: "POLICY", effect: noted, harmless: []string{"default"},
		why: ownFilter},
	{name: "secret", value: "SPEC", effect: refused,
		why: "there are no stored secrets; give --volume FILE:/run/secrets/NAME:ro"},
	{name: "security-opt", value: "OPTION", effect: noted,
		harmless: []string{"label=disable", "label:disable", "apparmor=unconfined",
			"apparmor:unconfined", "no-new-privileges=false", "no-new-privileges:false"},
		why: ownFilter},
	{name: "shm-size-systemd", value: "SIZE", effect: refused, why: "the command is never " +
		"process 1, and systemd must be; --shm-size sets the size of /dev/shm"},
	{name: "sig-proxy", effect: refused, harmless: isTrue,
		why: "signals to layerbuild are always passed on to the command"},
	{name: "stop-signal", value: "SIGNAL", why: "signals to layerbuild are passed on as they are"},
	{name: "stop-timeout", value: "N", why: "signals to layerbuild are passed on as they are",
		check: wholeNumber},
	{name: "storage-opt", value: "NAME=VALUE", effect: noted,
		why: "the files of the container are limited by the file system of the state directory"},
	{name: "subgidname", value: "NAME", effect: refused, why: subordinate},
	{name: "subuidname", value: "NAME", effect: refused, why: subordinate},
	{name: "sysctl", value: "NAME=VALUE", effect: refused,
		why: "the command has the kernel parameters of this machine; set them with sysctl"},
	{name: "systemd", value: "MODE", effect: refused, harmless: []string{"true", "false"},
		why: "the command is never process 1, and systemd must be"},
	{name: "timeout", value: "SECONDS", effect: refused, harmless: []string{"0"},
		why: "start layerbuild with timeout SECONDS", check: wholeNumber},
	{name: "tz", value: "ZONE", effect: refused, why: "give --env TZ=ZONE, or --volume " +
		"/etc/localtime:/etc/localtime:ro for the time zone of this machine"},
	{name: "uidmap", value: "MAP", effect: refused, why: subordinate},
	{name: "umask", value: "MODE", effect: refused, harmless: []string{"0022", "022"},
		why: "the command begins with the mask 0022; run sh -c 'umask MODE; exec COMMAND'"},
	{name: "use-api-socket", effect: refused, harmless: isFalse,
		why: "there is no daemon; give --volume /run/docker.sock:/run/docker.sock for docker's"},
	{name: "userns", value: "WHICH", effect: refused, harmless: []string{"", "host"},
		why: subordinate},
	{name: "uts", value: "WHICH", effect: refused, harmless: []string{"", "private"},
		why: ownNamespaces},
	{name: "variant", value: "VARIANT", effect: refused, why: onePlatform},
	{name: "volume-driver", value: "DRIVER", effect: refused, harmless: []string{"", "local"},
		why: noVolumes},
	{name: "volumes-from", value: "CONTAINER", effect: refused, why: noOthers},
}

// ownFilter is the reason for flags about the confinement of a command.
const ownFilter = "commands always run with the same filter for system calls and without " +
	"labels; --privileged has no filter, and --cap-add and --cap-drop change the capabilities"

// runAliases are other names of flags of docker run and podman run.
var runAliases = map[string]string{"dns-opt": "dns-option", "net": "network",
	"net-alias": "network-alias"}

// runName returns the name of a flag of run that may be an alias.
func runName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if other, ok := runAliases[name]; ok {
		name = other
	}
	return pflag.NormalizedName(name)
}

// stream checks the value of --attach.
func stream(s string) error {
	return oneOf("stdin", "stdout", "stderr")(strings.ToLower(s))
}
