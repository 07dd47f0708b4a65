// SPDX-License-Identifier: Apache-2.0

// Package packages installs, upgrades and removes the packages in a root of its own, with a VM running through a
// view the while.
package packages
