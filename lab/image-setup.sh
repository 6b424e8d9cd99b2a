#!/bin/sh
# Runs inside the fresh root file system, as the last step of its build: makes it a host that starts quickly,
# starts nothing by itself, and holds no identity (host keys, machine id) of its own.
set -eu

# Nothing that a package brought along starts by itself: what the site configures would have to fight it.
# Disabled and not masked: the site's own units carry some of these names.
for unit in "$@"; do
    systemctl disable --quiet "$unit" 2>/dev/null || true
done
rm -rf /etc/postgresql/15 /var/lib/postgresql/15
sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf || true

# A container has no consoles to log in on, no disks to check or trim, and nothing to download at night.
systemctl mask --quiet console-getty.service getty@.service getty.target systemd-networkd-wait-online.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-firstboot.service ldconfig.service systemd-pcrphase.service systemd-hwdb-update.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount modprobe@.service kmod-static-nodes.service
systemctl enable --quiet systemd-networkd.service ssh.service
systemctl set-default --quiet multi-user.target

# SSH: one key type, keys only. The key itself is made per host, before its first start.
rm -f /etc/ssh/ssh_host_*
cat >/etc/ssh/sshd_config.d/10-lab.conf <<'CONF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UseDNS no
CONF

# Logs survive a power-off but stay small.
mkdir -p /etc/systemd/journald.conf.d /var/log/journal
cat >/etc/systemd/journald.conf.d/10-lab.conf <<'CONF'
[Journal]
Storage=persistent
SystemMaxUse=64M
RuntimeMaxUse=16M
ForwardToConsole=no
ForwardToWall=no
CONF

# The deploy user as a machine's owner hands it over; the base system narrows what it may run.
useradd --create-home --shell /bin/bash --password '*' keadb
install -d -m 0700 -o keadb -g keadb /home/keadb/.ssh
echo 'keadb ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/keadb-bootstrap
chmod 0440 /etc/sudoers.d/keadb-bootstrap

# No source is reachable from the lab, so that apt finds what it needs installed, or says so at once.
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/auth.conf*
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
rm -f /etc/resolv.conf /etc/hostname /var/lib/dbus/machine-id
: >/etc/machine-id
rm -f /var/log/*.log /var/log/apt/*
