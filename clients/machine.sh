# Runs as the first process of new mount, network, uts, ipc and, but for systemd's sake, pid namespaces:
# makes of them a small machine of its own, in which each daemon finds its usual directories, empty.
# $RUNTIME is the runtime under test; it is where the documentation says it is, /usr/local/bin/keel.
set -euo pipefail
mount --make-rprivate /

# What is written to these stays here.
scratch=$(mktemp -d)
mount -t tmpfs tmpfs "$scratch"
install -m 755 "$RUNTIME" "$scratch/runtime"
for dir in /usr/local/bin /usr/local/sbin /etc /var/lib; do
	layer=$scratch$dir
	mkdir -p "$layer"/{upper,work}
	mount -t overlay -o "lowerdir=$dir,upperdir=$layer/upper,workdir=$layer/work" overlay "$dir"
done
touch /usr/local/bin/keel
mount --bind "$scratch/runtime" /usr/local/bin/keel
umount -l "$scratch"
rmdir "$scratch"

# Whoever shares the host's processes may ask its systemd, too.
[ $$ = 1 ] || exec 3</run/systemd 4</run/dbus
for dir in /run /home /opt /tmp /var/log /var/lib/{containers,cni,docker,containerd,kubelet} \
	/etc/{containers,cni,docker,containerd,crio}; do
	mkdir -p "$dir"
	mount -t tmpfs -o mode=755 tmpfs "$dir"
done
chmod 1777 /tmp
mkdir /run/lock
if [ $$ != 1 ]; then
	mkdir /run/systemd /run/dbus
	mount --no-canonicalize --bind /proc/self/fd/3 /run/systemd
	mount --no-canonicalize --bind /proc/self/fd/4 /run/dbus
	exec 3<&- 4<&-
fi
ip link set lo up

# A user with ids of his own, for rootless containers.
echo 'tester:x:4000:4000::/home/tester:/bin/bash' >>/etc/passwd
echo 'tester:x:4000:' >>/etc/group
echo 'tester:200000:65536' | tee -a /etc/subuid >>/etc/subgid
install -d -o 4000 -g 4000 -m 700 /home/tester /run/user/4000

# The image: busybox with two users.
mkdir -p /run/image/{bin,etc,tmp,root,home,dev,proc,sys,var}
cp /bin/busybox /run/image/bin/
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "/run/image/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n' >/run/image/etc/passwd
printf 'root:x:0:\napp:x:1000:\n' >/run/image/etc/group
tar -C /run/image -cf /run/image.tar .
chmod 644 /run/image.tar

echo ready
# The first process takes orphans in; a container waits for every process of its own to be reaped.
sleep infinity &
wait
