// SPDX-License-Identifier: Apache-2.0

// Package dd is dd(1) under imgcp's rules. It reads operands as GNU coreutils 9.1 does: same names, same suffixes, same
// defaults, same mistakes refused. What conversions it does not know (block, unblock, ascii, ebcdic, ibm) are errors, as are unknown
// operands.
package dd

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Amount is a number of records of the block size in question, and of bytes beyond them.
type Amount struct{ Records, Bytes int64 }

// Total is a in bytes, for records of size bytes; math.MaxInt64 if it is larger.
func (a Amount) Total(size int64) int64 {
	if a.Records > (math.MaxInt64-a.Bytes)/size {
		return math.MaxInt64
	}
	return a.Records*size + a.Bytes
}

// Zero reports whether a is nothing.
func (a Amount) Zero() bool { return a == Amount{} }

// Operands is one command line.
type Operands struct {
	In, Out    string // "" for standard input and output
	IBS, OBS   int64  // bytes
	TwoBuffers bool   // ibs= and obs= instead of bs=: input records are repacked into output records
	Skip       Amount // of IBS
	Seek       Amount // of OBS
	Count      Amount // of IBS; no limit if !Limited
	Limited    bool
	Conv       Conv
	IFlag      Flag
	OFlag      Flag
	Status     Status
}

// Conv is a set of conversions.
type Conv uint

// The conversions.
const (
	NoTrunc Conv = 1 << iota
	Sparse
	Fsync
	Fdatasync
	Excl
	NoCreat
	NoError
	Sync
	Swab
	LCase
	UCase
)

// Flag is a set of I/O flags.
type Flag uint

// The flags.
const (
	Append Flag = 1 << iota
	Direct
	DSync
	SyncIO
	FullBlock
	NonBlock
	NoAtime
	NoCache
	NoCTTY
	NoFollow
	Directory
	CountBytes
	SkipBytes
	SeekBytes
)

// Status is what is printed.
type Status string

// The statuses.
const (
	Default  Status = ""
	None     Status = "none"     // errors only
	NoXfer   Status = "noxfer"   // the numbers of records only
	Progress Status = "progress" // a line every second
)

var convNames = map[string]Conv{
	"notrunc": NoTrunc, "sparse": Sparse, "fsync": Fsync, "fdatasync": Fdatasync, "excl": Excl, "nocreat": NoCreat,
	"noerror": NoError, "sync": Sync, "swab": Swab, "lcase": LCase, "ucase": UCase,
}

var flagNames = map[string]Flag{
	"append": Append, "direct": Direct, "dsync": DSync, "sync": SyncIO, "fullblock": FullBlock, "nonblock": NonBlock,
	"noatime": NoAtime, "nocache": NoCache, "noctty": NoCTTY, "nofollow": NoFollow, "directory": Directory,
	"count_bytes": CountBytes, "skip_bytes": SkipBytes, "seek_bytes": SeekBytes,
}

// defaultBlock is dd's, in bytes.
const defaultBlock = 512

// maxBlock keeps a block in memory; GNU dd's own limit is what malloc gives.
const maxBlock = 1 << 31

// Parse reads a command line. Of an operand given twice the last counts; conversions and flags add up.
func Parse(args []string) (Operands, error) {
	p := parser{o: Operands{IBS: defaultBlock, OBS: defaultBlock, TwoBuffers: true}}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return Operands{}, fmt.Errorf("unrecognized operand %q: operands are written name=value, as in if=FILE", arg)
		}
		if err := p.operand(name, value); err != nil {
			return Operands{}, err
		}
	}
	return p.finish()
}

// parser holds what depends on operands that may come later.
type parser struct {
	o                    Operands
	bs                   int64
	skip, seek, count    int64
	skipB, seekB, countB bool // the number had a B in it: it counts bytes
}

func (p *parser) operand(name, value string) (err error) {
	switch name {
	case "if", "of":
		if value == "" { // Operands has it for standard input and output, which nobody means who writes this
			return errors.New("a name is empty; is a variable of a script not set?")
		}
	}
	switch name {
	case "if":
		p.o.In = value
	case "of":
		p.o.Out = value
	case "bs":
		p.bs, err = blockSize(value)
	case "ibs":
		p.o.IBS, err = blockSize(value)
	case "obs":
		p.o.OBS, err = blockSize(value)
	case "skip", "iseek":
		p.skip, p.skipB, err = number(value)
	case "seek", "oseek":
		p.seek, p.seekB, err = number(value)
	case "count":
		p.count, p.countB, err = number(value)
		p.o.Limited = true
	case "conv":
		p.o.Conv, err = add(p.o.Conv, convNames, value, "conversion")
	case "iflag":
		p.o.IFlag, err = add(p.o.IFlag, flagNames, value, "input flag")
	case "oflag":
		p.o.OFlag, err = add(p.o.OFlag, flagNames, value, "output flag")
	case "status":
		switch p.o.Status = Status(value); p.o.Status {
		case None, NoXfer, Progress:
		default:
			err = fmt.Errorf("invalid status level %q: none, noxfer or progress", value)
		}
	case "cbs":
		err = errors.New("imgcp dd has no cbs=, nor the conversions that need it (block, unblock, ascii, ebcdic, ibm)")
	default:
		err = fmt.Errorf("unrecognized operand %q", name+"="+value)
	}
	return err
}

func (p *parser) finish() (Operands, error) {
	o := p.o
	if p.bs > 0 {
		o.IBS, o.OBS, o.TwoBuffers = p.bs, p.bs, false
	}
	if o.Conv&(Swab|LCase|UCase) != 0 {
		o.TwoBuffers = true
	}
	o.Skip = amount(p.skip, o.IBS, p.skipB || o.IFlag&SkipBytes != 0)
	o.Count = amount(p.count, o.IBS, p.countB || o.IFlag&CountBytes != 0)
	o.Seek = amount(p.seek, o.OBS, p.seekB || o.OFlag&SeekBytes != 0)
	switch {
	case o.Conv&Excl != 0 && o.Conv&NoCreat != 0:
		return o, errors.New("cannot combine excl and nocreat")
	case o.Conv&LCase != 0 && o.Conv&UCase != 0:
		return o, errors.New("cannot combine lcase and ucase")
	case o.OFlag&FullBlock != 0:
		return o, errors.New("invalid output flag: fullblock")
	case o.IFlag&SeekBytes != 0:
		return o, errors.New("invalid input flag: seek_bytes")
	case o.OFlag&(CountBytes|SkipBytes) != 0:
		return o, errors.New("invalid output flag: count_bytes and skip_bytes are for iflag=")
	case o.IFlag&Direct != 0 && o.IFlag&NoCache != 0, o.OFlag&Direct != 0 && o.OFlag&NoCache != 0:
		return o, errors.New("cannot combine direct and nocache")
	case o.Skip.Total(o.IBS) == math.MaxInt64 || o.Seek.Total(o.OBS) == math.MaxInt64:
		return o, errors.New("skip= or seek= leads beyond the end of any file")
	}
	return o, nil
}

func amount(n, block int64, inBytes bool) Amount {
	if inBytes {
		return Amount{n / block, n % block}
	}
	return Amount{Records: n}
}

func blockSize(s string) (int64, error) {
	n, _, err := number(s)
	if err == nil && (n < 1 || n > maxBlock) {
		err = fmt.Errorf("invalid block size %q: 1 to %d bytes", s, int64(maxBlock))
	}
	return n, err
}

// number says too whether a B in it makes it a number of bytes, be it 10B, 10kB or 10KiB.
func number(s string) (n int64, inBytes bool, err error) {
	n, err = ParseSize(s)
	return n, strings.Contains(s, "B"), err
}

// add adds the comma-separated names to a set.
func add[S ~uint](set S, names map[string]S, value, what string) (S, error) {
	for name := range strings.SplitSeq(value, ",") {
		bit, ok := names[name]
		if !ok {
			return set, fmt.Errorf("invalid %s: %q", what, name)
		}
		set |= bit
	}
	return set, nil
}
