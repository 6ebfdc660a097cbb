//go:build linux

package ethtap_test

import (
	"log"
	"sync"

	"bitw/netstack/ethtap"
)

func init() { ethtap.Page = Example } // a test runs it

// The loop of the original ETHTAP page: with both taps Active the program has
// severed the kernel from the NIC, and restores the connection by reading from
// each tap and writing to the other.
func Example() {
	dev, err := ethtap.Open(ethtap.Options{Interface: "eth0"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	if err := dev.SetStates(ethtap.Active, ethtap.Active); err != nil {
		log.Fatal(err)
	}
	forward := func(from, to *ethtap.Tap) {
		buf := make([]byte, ethtap.MaxFrame)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return // Closed
			}
			if _, err := to.Write(buf[:n]); err != nil {
				log.Print(err)
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { forward(dev.Kernel(), dev.Wire()) })
	wg.Go(func() { forward(dev.Wire(), dev.Kernel()) })
	wg.Wait()
}
