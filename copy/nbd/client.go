// SPDX-License-Identifier: Apache-2.0

// Package nbd reads from an NBD server (the NBD protocol's doc/proto.md) on a Unix socket: QEMU's, which shows a disk of a
// running domain as it was when a backup began. It does what that takes: fixed newstyle negotiation without TLS, structured
// replies, base:allocation, reads and block status. A Client has one request in flight; several clients read at once.
package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
)

const (
	magic      = 0x4e42444d41474943 // NBDMAGIC
	optMagic   = 0x49484156454f5054 // IHAVEOPT
	replyMagic = 0x0003e889045565a9
	cmdMagic   = 0x25609513
	chunkMagic = 0x668e33ef

	fixedNewstyle, noZeroes = 1, 2

	optGo, optStructured, optSetMeta = 7, 8, 10

	repAck, repInfo, repMeta = 1, 3, 4
	repError                 = 1 << 31
	infoExport               = 0

	cmdRead, cmdStatus = 0, 7

	chunkDone                               = 1 << 0 // flag
	chunkNone, chunkData, chunkHole, chunkS = 0, 1, 2, 5
	chunkError                              = 1 << 15 // and above: errors

	// stateZero: reads as zeroes (base:allocation).
	stateZero = 2

	maxReply = 64 << 20 // no chunk is larger than what was asked for, 32 MiB at most
)

// MaxRead is the most that one Read may ask for.
const MaxRead = 32 << 20

// Client is a connection to one export.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	size   int64
	status bool   // base:allocation is to be had
	meta   uint32 // its number
	handle uint64
}

// Dial connects to the export on a socket. Calls end when ctx does.
func Dial(ctx context.Context, socket, export string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, in: bufio.NewReaderSize(conn, 256<<10)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	if err := c.negotiate(export); err != nil {
		stop()
		conn.Close()
		return nil, fmt.Errorf("NBD export %s on %s: %w", export, socket, err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() { c.conn.Close() }

// Size is the export's in bytes.
func (c *Client) Size() int64 { return c.size }

func (c *Client) negotiate(export string) error {
	var hello struct {
		Magic, Opt uint64
		Flags      uint16
	}
	if err := binary.Read(c.in, binary.BigEndian, &hello); err != nil {
		return err
	}
	if hello.Magic != magic || hello.Opt != optMagic || hello.Flags&fixedNewstyle == 0 {
		return errors.New("it is no NBD server, or one that is too old")
	}
	if err := binary.Write(c.conn, binary.BigEndian, uint32(fixedNewstyle|hello.Flags&noZeroes)); err != nil {
		return err
	}
	if err := c.option(optStructured, nil, func(uint32, []byte) error { return nil }); err != nil {
		return fmt.Errorf("structured replies: %w", err)
	}
	err := c.option(optSetMeta, metaQuery(export), func(kind uint32, b []byte) error {
		if kind == repMeta && len(b) >= 4 {
			c.status, c.meta = true, binary.BigEndian.Uint32(b)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("base:allocation: %w", err)
	}
	name := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	name = append(name, export...)
	name = append(name, 0, 0) // no more information than there must be
	return c.option(optGo, name, func(kind uint32, b []byte) error {
		if kind == repInfo && len(b) >= 12 && binary.BigEndian.Uint16(b) == infoExport {
			size := binary.BigEndian.Uint64(b[2:])
			if size > math.MaxInt64 {
				return fmt.Errorf("a disk cannot have %d bytes", size)
			}
			c.size = int64(size)
		}
		return nil
	})
}

func metaQuery(export string) []byte {
	const query = "base:allocation"
	b := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(len(query)))
	return append(b, query...)
}

// option sends an option and reads the replies up to the acknowledgement.
func (c *Client) option(opt uint32, data []byte, reply func(kind uint32, b []byte) error) error {
	b := binary.BigEndian.AppendUint64(nil, optMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := c.conn.Write(append(b, data...)); err != nil {
		return err
	}
	for {
		var h struct {
			Magic             uint64
			Opt, Kind, Length uint32
		}
		if err := binary.Read(c.in, binary.BigEndian, &h); err != nil {
			return err
		}
		const most = 64 << 10
		if h.Magic != replyMagic || h.Opt != opt || h.Length > most {
			return errors.New("the server does not answer what was asked")
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return err
		}
		if h.Kind&repError != 0 {
			return fmt.Errorf("refused (%#x): %s", h.Kind, b)
		}
		if h.Kind == repAck {
			return nil
		}
		if err := reply(h.Kind, b); err != nil {
			return err
		}
	}
}

// request sends a command and calls chunk for each part of the answer.
func (c *Client) request(cmd uint16, off int64, n uint32, chunk func(kind uint16, b []byte) error) error {
	c.handle++
	b := binary.BigEndian.AppendUint32(nil, cmdMagic)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, c.handle)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	b = binary.BigEndian.AppendUint32(b, n)
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	for {
		var h struct {
			Magic       uint32
			Flags, Kind uint16
			Handle      uint64
			Length      uint32
		}
		if err := binary.Read(c.in, binary.BigEndian, &h); err != nil {
			return err
		}
		if h.Magic != chunkMagic || h.Handle != c.handle || h.Length > maxReply {
			return errors.New("the server does not answer what was asked")
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return err
		}
		switch {
		case h.Kind >= chunkError:
			return serverError(b)
		case h.Kind != chunkNone:
			if err := chunk(h.Kind, b); err != nil {
				return err
			}
		}
		if h.Flags&chunkDone != 0 {
			return nil
		}
	}
}

func serverError(b []byte) error {
	if len(b) < 6 {
		return errors.New("an error that the server does not name")
	}
	errno := binary.BigEndian.Uint32(b)
	text := b[6:]
	text = text[:min(len(text), int(binary.BigEndian.Uint16(b[4:])))]
	return fmt.Errorf("the server says error %d: %s", errno, text)
}

// Read fills b from an offset.
func (c *Client) Read(b []byte, off int64) error {
	if len(b) > MaxRead {
		return fmt.Errorf("a read of %d bytes is too large", len(b))
	}
	filled := 0
	place := func(at uint64, n int) (int, error) {
		from := int64(at) - off
		if at > math.MaxInt64 || from < 0 || n < 0 || from+int64(n) > int64(len(b)) {
			return 0, errors.New("the server sends what was not asked for")
		}
		filled += n
		return int(from), nil
	}
	err := c.request(cmdRead, off, uint32(len(b)), func(kind uint16, p []byte) error {
		if len(p) < 8 {
			return errors.New("the server's answer is too short")
		}
		at, p := binary.BigEndian.Uint64(p), p[8:]
		switch {
		case kind == chunkData:
			from, err := place(at, len(p))
			if err == nil {
				copy(b[from:], p)
			}
			return err
		case kind == chunkHole && len(p) == 4:
			n := int(binary.BigEndian.Uint32(p))
			from, err := place(at, n)
			if err == nil {
				clear(b[from : from+n])
			}
			return err
		}
		return fmt.Errorf("an answer of kind %d is not known", kind)
	})
	if err == nil && filled != len(b) {
		err = fmt.Errorf("%d of %d bytes were sent", filled, len(b))
	}
	if err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
	}
	return nil
}

// Zeroes says of a range that begins at an offset, and of how much of it at most n bytes, whether it reads as zeroes. Where the
// server does not know, it is data.
func (c *Client) Zeroes(off, n int64) (is bool, length int64, err error) {
	length = min(n, math.MaxInt32&^0xfff, c.size-off)
	if !c.status {
		return false, length, nil
	}
	err = c.request(cmdStatus, off, uint32(length), func(kind uint16, b []byte) error {
		if kind != chunkS || len(b) < 12 || binary.BigEndian.Uint32(b) != c.meta {
			return fmt.Errorf("an answer of kind %d is not known", kind)
		}
		first := int64(binary.BigEndian.Uint32(b[4:]))
		if first == 0 {
			return errors.New("an extent without length")
		}
		length = min(length, first)
		is = binary.BigEndian.Uint32(b[8:])&stateZero != 0
		return nil
	})
	return is, length, err
}
