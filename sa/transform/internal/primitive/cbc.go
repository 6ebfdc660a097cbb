package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// BlockLen is the length of an AES block and of a CBC IV, in octets.
const BlockLen = aes.BlockSize

// A blockMode is a CBC mode that can be used again with another IV. Those of the
// standard library can; making a new one for each packet would allocate.
type blockMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// A CBC is a block cipher in CBC mode (NIST SP 800-38A §6.2) with one key.
type CBC struct {
	block                  cipher.Block
	encrypters, decrypters sync.Pool // of blockMode

	// The IVs are a counter encrypted under a random key that nobody else knows:
	// they never repeat, cannot be foreseen (RFC 3602 §3), and cost no system call.
	ivs     cipher.Block
	counter atomic.Uint64
}

// NewCBC returns AES-CBC with a key of 16, 24 or 32 octets, which is copied. From
// random it reads 32 octets once.
func NewCBC(key []byte, random io.Reader) (*CBC, error) {
	return newCBC(aes.NewCipher, key, 32, random)
}

// newCBC returns CBC of the cipher that newCipher makes; ivKeyLen is the length of a key
// for the IVs.
func newCBC(newCipher func(key []byte) (cipher.Block, error), key []byte, ivKeyLen int, random io.Reader) (*CBC, error) {
	block, err := newCipher(key)
	if err != nil {
		return nil, err
	}
	ivKey := make([]byte, ivKeyLen)
	defer clear(ivKey)
	if _, err := io.ReadFull(random, ivKey); err != nil {
		return nil, err
	}
	c := &CBC{block: block}
	if c.ivs, err = newCipher(ivKey); err != nil {
		return nil, err
	}
	n := block.BlockSize()
	_, e := cipher.NewCBCEncrypter(block, make([]byte, n)).(blockMode)
	_, d := cipher.NewCBCDecrypter(block, make([]byte, n)).(blockMode)
	if !e || !d {
		return nil, errors.New("the CBC modes of this Go release have no SetIV")
	}
	c.encrypters.New = func() any { return cipher.NewCBCEncrypter(block, make([]byte, n)) }
	c.decrypters.New = func() any { return cipher.NewCBCDecrypter(block, make([]byte, n)) }
	return c, nil
}

// NextIV writes a fresh IV to iv, which is as long as a block.
func (c *CBC) NextIV(iv []byte) {
	clear(iv)
	binary.BigEndian.PutUint64(iv[len(iv)-8:], c.counter.Add(1))
	c.ivs.Encrypt(iv, iv)
}

// Encrypt encrypts data in place. It is a multiple of the block long.
func (c *CBC) Encrypt(iv, data []byte) { crypt(&c.encrypters, iv, data) }

// Decrypt decrypts data in place. It is a multiple of the block long.
func (c *CBC) Decrypt(iv, data []byte) { crypt(&c.decrypters, iv, data) }

// EncryptBlock encrypts one block in place, without chaining.
func (c *CBC) EncryptBlock(b []byte) { c.block.Encrypt(b, b) }

// DecryptBlock decrypts one block in place, without chaining.
func (c *CBC) DecryptBlock(b []byte) { c.block.Decrypt(b, b) }

func crypt(modes *sync.Pool, iv, data []byte) {
	m := modes.Get().(blockMode)
	m.SetIV(iv)
	m.CryptBlocks(data, data)
	modes.Put(m)
}
