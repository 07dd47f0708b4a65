// SPDX-License-Identifier: Apache-2.0

package move

// run is a part of a piece that is treated alike.
type run struct {
	Span
	content content
}

type content int

const (
	data content = iota
	zero         // read from the source, and nothing but zeroes
	hole         // of the source
)

// split cuts a piece into runs. A blank target needs to know nothing of the piece's holes; another one gets them as the
// zeroes that they read as.
func (p *Pump) split(pc Piece, b []byte) (runs []run) {
	parts := pc.Data
	if !p.Blank {
		parts = []Span{pc.Span}
	}
	at := pc.Off
	gap := func(to int64) {
		if at < to {
			runs = append(runs, run{Span{at, to - at}, hole})
		}
	}
	for _, d := range parts {
		gap(d.Off)
		for at = d.Off; at < d.End(); {
			n, zeroes := p.nextRun(b[at-pc.Off : d.End()-pc.Off])
			what := data
			if zeroes {
				what = zero
			}
			runs = append(runs, run{Span{at, int64(n)}, what})
			at += int64(n)
		}
	}
	gap(pc.End())
	if p.Blank && comb(runs) {
		return []run{{Span: pc.Span}}
	}
	return runs
}

// combRuns is how many runs of data a piece may have before it is a comb.
const combRuns = 8

// comb reports whether a piece is at least half data, in so many runs that its gaps cost more than they save: a request and
// an extent each, for the copy and for whoever uses it.
func comb(runs []run) bool {
	var count int
	var bytes, all int64
	for _, r := range runs {
		all += r.N
		if r.content == data {
			count++
			bytes += r.N
		}
	}
	return count > combRuns && 2*bytes >= all
}

// minZero is the shortest run of zeroes that a target which must be told about them is told about: a request of its own
// costs a device more than writing this much.
const minZero = 64 << 10

// nextRun is the next run to be treated alike.
func (p *Pump) nextRun(b []byte) (n int, zero bool) {
	if p.keepZeroes {
		return len(b), false
	}
	if n, zero = nextRun(b); p.Blank || zero && n >= minZero {
		return n, zero
	}
	for n < len(b) { // take short runs of zeroes along with the data
		more, zero := nextRun(b[n:])
		if zero && more >= minZero {
			break
		}
		n += more
	}
	return n, false
}
