// SPDX-License-Identifier: Apache-2.0

package guard

// What the kernel refuses by itself is reported here by the layer that hears of it (guard/lsm), in the words of a view's
// refusals.

// The operations on the mount of a view, which the contract's table does not have.
const (
	OpUmount Op = "umount"     // also lazily, and of a mount that the view stands on
	OpMove   Op = "move-mount" // mount --move
	OpCover  Op = "cover"      // a mount over the view
)

// ofMount says whether an operation is one on a view's mount: for those there are no exceptions.
func (o Op) ofMount() bool { return o == OpUmount || o == OpMove || o == OpCover }

// Reason is the clause that names a use: "it is vdb of running domain rhevm (pid 1234)".
func Reason(u Use) string { return usedReason(u) }

// Spent notes that an exception has let an operation of a process through. An exception for a single command is that
// process's from then on. There may be none with this ID any more.
func (g *Guard) Spent(id uint64, op Op, by *Process) {
	g.exceptions.spend(&Exception{ID: id}, op, by)
}
