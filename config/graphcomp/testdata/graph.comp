@;
name=watchdog;
name=ethkern;
name=ethdev;
name=eth/1	protocols=ethdev;
name=arp/1	dir=arp
		files=arp.c,arp_rom.c,arp_table.c
		protocols=eth/1;
name=eth/0	protocols=ethkern;
name=arp/0	protocols=eth/0;
name=vnet	protocols=eth/0,arp/0,eth/1,arp/1;

name=rfc1825	protocols=km/sauser,km/sauser,md5,md5,
		crypt,crypt3,tcrypt,md5,crypt3in;

name=ip 	dir=ip 
		files=ip.c,ip_frag.c,ip_hdr.c,ip_rom.c,iproute.c,
		ip_control.c,ip_gc.c,ip_input.c,ip_util.c
		protocols=vnet,rfc1825;


name=km/sauser;
name=km/b;
name=km/md5;
name=km/alg;
name=km/crypt;
name=km/tcrypt;
name=km/crypt3;
name=km/crypt3in;
name=sink;

name=md5 	protocols=km/md5;
name=tcrypt	protocols=km/tcrypt;
name=crypt	protocols=km/crypt;
name=crypt3	protocols=km/crypt3;
name=crypt3in	protocols=km/crypt3in;

name=spiint  	protocols=ip,saidmgr;
name=saidmgr	protocols=sink,vnet,km/sauser,km/b,km/alg,km/md5,km/crypt;
name=ipf_udp 	protocols=spiint;
name=ipf_tcp 	protocols=spiint;
name=ipf_icmp 	protocols=spiint;

@;

name=prottest		trace=TR_MAJOR_EVENTS;
name=init		trace=TR_FULL_TRACE;
name=watchdogp		trace=TR_FULL_TRACE;

prottbl=./prottbl;

romopt md5		useipsec;
romopt md5		leafmode;
romopt md5		rfc1828;
romopt crypt		useipsec;
romopt tcrypt		useipsec;
romopt km/sauser	kmparams 8 0-100 100;
romopt km/b		kmparams 4 0-100 100;
romopt km/md5		kmparams 8 16 16;
romopt km/crypt		kmparams 8 8 10;
romopt km/tcrypt	kmparams 8 8 10;
romopt km/crypt3	kmparams 8 16 10;
romopt km/crypt3in	kmparams 8 16 10;
