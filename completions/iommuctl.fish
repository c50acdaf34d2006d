# SPDX-License-Identifier: Apache-2.0
# fish completion of iommuctl. `iommuctl completion install` puts it where fish finds it.
# Words that never change stand here; domains, devices and what else is alive come from `iommuctl __complete`.

# -- generated --
function __iommuctl_command --no-scope-shadowing --argument-names __path
    set verbs
    set takes
    set opts
    switch $__path
        case ''
            set -a verbs device 'Devices: what uses I/O page tables'
            set -a verbs domain 'Domains: kernel-managed I/O page tables'
            set -a verbs memory 'Named memory, for mappings'
            set -a verbs pgtable 'Page tables: user-managed stage 1, built in guest memory'
            set -a verbs attach 'Attach a domain to a device or to one of its PASIDs'
            set -a verbs detach 'Detach a domain from a device or from one of its PASIDs'
            set -a verbs bind-pgtable 'Bind a page table to a slot, nested on its parent domain'
            set -a verbs unbind-pgtable 'Take a page table out of a slot, which goes back to what it was'
            set -a verbs invalidate 'Tell the caches that a bound page table changed'
            set -a verbs topology 'Show who is attached to what'
            set -a verbs exec 'Run a program that uses devices, with their file descriptors'
            set -a verbs translate 'Walk the tables: where would this address go?'
            set -a verbs fault 'Faults: requests of devices that were refused, and page requests that wait for an answer'
            set -a verbs table 'Hardware structures, and tables entry by entry'
            set -a verbs check 'Compare the tables with what they should hold'
            set -a verbs plan 'Show what `apply` would do, and why'
            set -a verbs apply 'Make the state what a document says: all of it, or nothing when a part fails'
            set -a verbs export 'Print the state as a document that `apply` takes: TOML, or JSON with -j'
            set -a verbs recover 'Build again what was lost: the kernel\'s objects, or damaged tables of a simulated machine'
            set -a verbs batch 'Run many commands in one process'
            set -a verbs unit 'IOMMU units: what each can do, and is doing'
            set -a verbs backend 'Backends: what can drive an IOMMU here'
            set -a verbs sim 'The simulated machine: DMA at will, memory, registers'
            set -a verbs demo 'See it work on a simulated machine'
            set -a verbs completion 'Completion for bash, zsh and fish'
            set -a opts --version 'Print the version.'
        case device
            set -a verbs add 'Add a device to the simulated machine'
            set -a verbs remove 'Remove a device from the simulated machine'
            set -a verbs bind 'Give a device of real hardware to vfio-pci, and hold it, so that its slots can be used'
            set -a verbs unbind 'Let a device of real hardware go, and give it back to the driver that it had'
            set -a verbs list 'List the devices'
            set -a verbs show 'Show a device and what its slots hold'
        case 'device add'
            set takes ''
            set -a opts --ats 'It has ATS: it caches translations itself.'
            set -a opts --pri 'It has PRI: it can ask for pages.'
            set -a opts '--pasid-bits=' 'Width of its PASIDs; default: none.'
        case 'device remove'
            set takes RID
            set -a opts --force 'Take its users off first.'
        case 'device bind'
            set takes RID
        case 'device unbind'
            set takes RID
            set -a opts --force 'Take its users off first.'
        case 'device list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'device show'
            set takes RID
        case domain
            set -a verbs create 'Create an empty domain'
            set -a verbs list 'List the domains'
            set -a verbs show 'Show a domain: its aperture, its mappings and the slots that it is in'
            set -a verbs destroy 'Destroy a domain with all its mappings'
            set -a verbs map 'Map a range of input addresses; every slot that uses the domain sees it at once'
            set -a verbs unmap 'Unmap a range of whole mappings, and flush it from all caches'
            set -a verbs dirty 'Track what devices write to a domain that was created with --dirty; real hardware only'
        case 'domain create'
            set takes ''
            set -a opts --nest-parent 'Page tables can be nested on it.'
            set -a opts '--width=' 'Input address bits.'
            set -a opts '--page-sizes=' 'Use no other page sizes.'
            set -a opts --dirty 'Track which pages devices wrote.'
            set -a opts '--label=' 'A note for people.'
        case 'domain list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'domain show'
            set takes DOMAIN
        case 'domain destroy'
            set takes DOMAIN
            set -a opts --force 'Take its users off first.'
        case 'domain map'
            set takes DOMAIN
            set -a opts '--iova=' 'First input address.'
            set -a opts '--size=' 'Bytes, as 4096, 4K or 1G.'
            set -a opts '--pa=' 'Physical address.'
            set -a opts '--memory=MEM' 'Named memory.'
            set -a opts '--prot=r|w|rw|rx|rwx' 'What a device may do there.'
        case 'domain unmap'
            set takes DOMAIN
            set -a opts '--iova=' 'First input address.'
            set -a opts '--size=' 'Bytes, as 4096, 4K or 1G.'
        case 'domain dirty'
            set takes DOMAIN 'on|off|read'
        case memory
            set -a verbs create 'Set memory aside and give it a name'
            set -a verbs list 'List the named memory'
            set -a verbs destroy 'Give named memory back. Refused while a domain maps it'
        case 'memory create'
            set takes ''
            set -a opts '--size=' 'Bytes, as 4096, 4K or 1G.'
            set -a opts '--path=FILE' 'Real hardware: a file.'
            set -a opts '--fd=' 'Real hardware: a process\'s memfd.'
            set -a opts '--dma-buf=' 'Real hardware: a BAR.'
            set -a opts --hugepages 'Real hardware: in huge pages.'
        case 'memory list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'memory destroy'
            set takes MEM
            set -a opts --force 'Take its users off first.'
        case pgtable
            set -a verbs create 'Create an empty page table in guest memory of its parent domain'
            set -a verbs map 'Map a range of input addresses to guest memory'
            set -a verbs unmap 'Unmap a range. Caches keep what they have until `invalidate`'
            set -a verbs list 'List the page tables that were built here'
            set -a verbs show 'Show a page table: its mappings, and where it is bound'
            set -a verbs destroy 'Destroy a page table; its pool is free again. Refused while it is bound'
        case 'pgtable create'
            set takes ''
            set -a opts '--parent=DOMAIN' 'The nest parent whose memory holds it.'
            set -a opts '--pool=' 'Guest memory to build it in, mapped read-write.'
            set -a opts '--format=FORMAT' 'Page-table format; default: the backend\'s first.'
            set -a opts '--label=' 'A note for people.'
        case 'pgtable map'
            set takes PGTABLE
            set -a opts '--iova=' 'First input address.'
            set -a opts '--size=' 'Bytes, as 4096, 4K or 1G.'
            set -a opts '--gpa=' 'Guest physical address.'
            set -a opts '--prot=r|w|rw|rx|rwx' 'What a device may do there.'
            set -a opts --privileged,--user 'Who may use it: privileged requests only, or all.'
        case 'pgtable unmap'
            set takes PGTABLE
            set -a opts '--iova=' 'First input address.'
            set -a opts '--size=' 'Bytes, as 4096, 4K or 1G.'
        case 'pgtable list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'pgtable show'
            set takes PGTABLE
        case 'pgtable destroy'
            set takes PGTABLE
            set -a opts --force 'Take its users off first.'
        case attach
            set takes DOMAIN RID
            set -a opts '--pasid=PASID|auto' 'PASID of the slot; auto takes a free one.'
            set -a opts --replace 'Replace what the slot holds, in one step.'
            set -a opts '--label=' 'A note for people.'
        case detach
            set takes DOMAIN RID
            set -a opts '--pasid=PASID' 'PASID of the slot.'
            set -a opts --force 'Unbind a page table that is bound there first.'
        case bind-pgtable
            set takes DOMAIN RID
            set -a opts '--addr=' 'Its root, or the cd-table itself.'
            set -a opts '--pgtable=PGTABLE' 'One of `pgtable list`.'
            set -a opts '--format=FORMAT' 'Page-table format; default: the backend\'s first.'
            set -a opts '--cd-pool=' 'Guest memory for the CD table (SMMUv3).'
            set -a opts '--pasid=PASID' 'PASID of the slot.'
            set -a opts '--label=' 'A note for people.'
        case unbind-pgtable
            set takes DOMAIN RID
            set -a opts '--pasid=PASID' 'PASID of the slot.'
        case invalidate
            set takes DOMAIN
            set -a opts '--device=RID' 'Only what is bound there.'
            set -a opts '--pasid=PASID' 'Only this PASID.'
            set -a opts '--iova=' 'First input address that changed.'
            set -a opts '--size=' 'How many bytes changed.'
            set -a opts --leaf 'Only leaf entries changed.'
        case topology
            set -a opts '--by=domain|device' 'What stands at the roots.'
            set -a opts '--format=tree' 'How it is drawn.'
        case exec
            set takes ''
            set -a opts '*--device=RID' 'A device that is bound.'
        case translate
            set takes RID ''
            set -a opts '--pasid=PASID' 'PASID of the slot.'
            set -a opts '--access=r|w|x' 'Read, write or execute.'
            set -a opts --privileged 'Ask as a privileged request; PCIe has them with PASID only.'
        case fault
            set -a verbs respond 'Answer a group of page requests, for which its device waits'
            set -a verbs list 'List the page requests that wait, and the faults that hardware recorded, the last one at the end'
            set -a verbs run 'Serve the handlers of page requests, until SIGINT or SIGTERM'
            set -a verbs watch 'Show faults, page requests, how they were answered, and what the kernel\'s log has of IOMMUs'
            set -a verbs handler 'Handlers: who answers the page requests of a slot, or of all slots of a domain'
        case 'fault respond'
            set takes '' ''
        case 'fault list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'fault run'
            set -a opts --once 'Serve what waits now, then end.'
            set -a opts '--jobs=' 'Programs that run at a time, at most.'
            set -a opts '--timeout=' 'How long a program may run.'
        case 'fault watch'
            set -a opts --follow 'Go on with what comes, until interrupted.'
        case 'fault handler'
            set -a verbs set 'Say who answers page requests of a slot, or of all slots of a domain that have no handler of their own'
            set -a verbs clear 'Take a handler away: nobody answers then, unless the domain of the slot has a handler'
            set -a verbs show 'Show the handlers: those of domains, then those of slots, and how much of their pages is in use'
        case 'fault handler set'
            set takes 'DOMAIN|RID' ''
            set -a opts '--pasid=PASID' 'PASID of the slot.'
            set -a opts --queue 'They wait for `fault respond`.'
            set -a opts --reject 'They are answered invalid.'
            set -a opts --exec 'A program answers each group; all that follows is its.'
            set -a opts --demand-map 'The pages are mapped to those of --from.'
            set -a opts '--from=MEM' 'Named memory; a range of guest or physical memory.'
        case 'fault handler clear'
            set takes 'DOMAIN|RID'
            set -a opts '--pasid=PASID' 'PASID of the slot.'
        case 'fault handler show'
            set takes 'DOMAIN|RID'
            set -a opts '--pasid=PASID' 'PASID of the slot.'
        case table
            set -a verbs list 'List the structures that are known by name'
            set -a verbs decode 'Decode the bits of a structure, field by field'
            set -a verbs dump 'Dump what is present: all entries of a domain or page table, or the structures of a device'
        case 'table list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'table decode'
            set takes STRUCTURE ''
            set -a opts '--revision=' 'Revision of the specification, where they differ: 3 or 4 for VT-d. Default: the newest.'
        case 'table dump'
            set takes 'DOMAIN|PGTABLE|RID'
        case check
        case plan
            set takes FILE
            set -a opts --prune 'Remove what the document does not name.'
            set -a opts '--out=FILE' 'Write the plan to a file, for `apply`.'
            set -a opts --detailed-exitcode 'Exit with 6 when there is something to do.'
        case apply
            set takes FILE
            set -a opts --prune 'Remove what the document does not name.'
            set -a opts --keep-going 'Do what can be done, where else one failure undoes all.'
        case export
        case recover
            set -a opts --forget 'Forget every object instead of building it again.'
        case batch
            set takes FILE
            set -a opts --atomic 'All lines take effect together, or none of them.'
            set -a opts --keep-going 'Go on after a line that fails.'
        case unit
            set -a verbs list 'List the IOMMU units of the machine'
            set -a verbs show 'Show a unit: its capabilities and its state in words, then its registers'
        case 'unit list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'unit show'
            set takes ''
        case backend
            set -a verbs list 'List the backends that are installed, and whether each works here'
            set -a verbs show 'Show what a backend declares: what it can do, and its limits'
        case 'backend list'
            set -a opts --brief 'Only the names or ids, one to a line.'
        case 'backend show'
            set takes BACKEND
        case sim
            set -a verbs init 'Make a simulated machine, in a state folder that has no objects yet'
            set -a verbs show 'Show the machine: its memory, the IOMMU\'s registers, how full its caches are'
            set -a verbs reset 'Make the machine new: no device, no domain, memory and caches empty'
            set -a verbs dma 'Have a device do a DMA, through the caches as hardware does. Exits 1 when it faults'
            set -a verbs read 'Read the machine\'s memory, as the processor sees it'
            set -a verbs write 'Write to the machine\'s memory, as the processor does. No cache notices'
        case 'sim init'
            set -a opts '--arch=ARCH' 'Architecture of its IOMMU; default vtd.'
            set -a opts '--ram=' 'Where its RAM is.'
            set -a opts '--tables=' 'The part of RAM for the IOMMU\'s tables.'
            set -a opts '*--option=' 'A detail of the IOMMU; repeatable.'
        case 'sim show'
        case 'sim reset'
        case 'sim dma'
            set takes RID ''
            set -a opts --read 'The device reads --size bytes.'
            set -a opts '--size=' 'Bytes to read.'
            set -a opts --write 'The device writes --data.'
            set -a opts '--data=' 'Bytes to write, as in memory.'
            set -a opts '--pasid=PASID' 'PASID of the slot.'
            set -a opts --privileged 'As a privileged request; PCIe has them with PASID only.'
            set -a opts --translated 'The device translates by itself, in its own TLB (ATS).'
        case 'sim read'
            set takes '' ''
        case 'sim write'
            set takes '' ''
        case demo
            set -a opts '--arch=' Architecture.
        case completion
            set -a verbs bash 'Print the completion script for bash'
            set -a verbs zsh 'Print the completion script for zsh'
            set -a verbs fish 'Print the completion script for fish'
            set -a verbs install 'Write the completion script to where the user\'s shell finds it'
        case 'completion bash'
        case 'completion zsh'
        case 'completion fish'
        case 'completion install'
            set -a opts '--shell=bash|zsh|fish' 'Default: the one that $SHELL names.'
        case '*'
            return 1
    end
    set -a opts -j,--json 'Print one JSON document; errors too, on stderr.'
    set -a opts --dry-run 'Change nothing; show the table words and the commands that would be written.'
    set -a opts --quiet 'Print no text when a change succeeds; -j still prints its document.'
    set -a opts '--backend=BACKEND' 'Backend of a new state folder (see `backend list`).'
    set -a opts '--state=DIR' 'State folder; default $IOMMUCTL_STATE, else one of the user\'s own: see `man iommuctl`.'
    set -a opts '--color=auto|always|never' 'Colour the output.'
    set -a opts --help 'Show this message and exit.'
end

function __iommuctl_known --argument-names metavar
    switch $metavar
        case ARCH
            printf '%s\n' vtd smmuv3
        case BACKEND
            printf '%s\n' vtd smmuv3 sim
        case FORMAT
            printf '%s\n' vtd.first-stage-4 vtd.first-stage-5 smmuv3.stage-1-4k-48 smmuv3.stage-1-16k-48 smmuv3.stage-1-64k-48
        case STRUCTURE
            printf '%s\n' vtd.root-entry vtd.scalable-root-entry vtd.context-entry vtd.scalable-context-entry vtd.pasid-directory-entry vtd.pasid-entry vtd.first-stage-entry vtd.second-stage-entry vtd.context-cache-invalidate vtd.iotlb-invalidate vtd.device-tlb-invalidate vtd.iec-invalidate vtd.invalidation-wait vtd.pasid-iotlb-invalidate vtd.pasid-cache-invalidate vtd.pasid-device-tlb-invalidate vtd.page-group-response vtd.page-request vtd.pqh vtd.pqt vtd.pqa vtd.prs vtd.pectl vtd.irte vtd.irte-posted vtd.irta vtd.fault-record vtd.ver vtd.cap vtd.ecap vtd.gcmd vtd.gsts vtd.rtaddr vtd.fsts vtd.fectl vtd.pmen vtd.iqh vtd.iqt vtd.iqa vtd.iqercd vtd.ccmd vtd.iva vtd.iotlb-register vtd.ics vtd.iectl smmuv3.l1std smmuv3.ste smmuv3.l1cd smmuv3.cd smmuv3.stage-1-descriptor smmuv3.stage-1-descriptor-64k smmuv3.stage-1-descriptor-ds smmuv3.stage-2-descriptor smmuv3.stage-2-descriptor-64k smmuv3.stage-2-descriptor-ds smmuv3.prefetch-config smmuv3.prefetch-addr smmuv3.cfgi-ste smmuv3.cfgi-ste-range smmuv3.cfgi-cd smmuv3.cfgi-cd-all smmuv3.cfgi-vms-pidm smmuv3.tlbi-nh-all smmuv3.tlbi-nh-asid smmuv3.tlbi-nh-va smmuv3.tlbi-nh-vaa smmuv3.tlbi-el2-all smmuv3.tlbi-el2-asid smmuv3.tlbi-el2-va smmuv3.tlbi-el2-vaa smmuv3.tlbi-s12-vmall smmuv3.tlbi-s2-ipa smmuv3.tlbi-nsnh-all smmuv3.atc-inv smmuv3.pri-resp smmuv3.resume smmuv3.stall-term smmuv3.sync smmuv3.f-uut smmuv3.c-bad-streamid smmuv3.f-ste-fetch smmuv3.c-bad-ste smmuv3.f-bad-ats-treq smmuv3.f-stream-disabled smmuv3.f-transl-forbidden smmuv3.c-bad-substreamid smmuv3.f-cd-fetch smmuv3.c-bad-cd smmuv3.f-cfg-conflict smmuv3.f-vms-fetch smmuv3.f-walk-eabt smmuv3.f-translation smmuv3.f-addr-size smmuv3.f-access smmuv3.f-permission smmuv3.f-tlb-conflict smmuv3.e-page-request smmuv3.page-request smmuv3.idr0 smmuv3.idr1 smmuv3.idr2 smmuv3.idr3 smmuv3.idr5 smmuv3.mpamidr smmuv3.iidr smmuv3.aidr smmuv3.idr6 smmuv3.cr0 smmuv3.cr1 smmuv3.cr2 smmuv3.statusr smmuv3.gbpa smmuv3.irq-ctrl smmuv3.gerror smmuv3.strtab-base smmuv3.strtab-base-cfg smmuv3.cmdq-base smmuv3.cmdq-prod smmuv3.cmdq-cons smmuv3.eventq-base smmuv3.eventq-prod smmuv3.eventq-cons smmuv3.priq-base smmuv3.priq-prod smmuv3.priq-cons smmuv3.irq-cfg0 smmuv3.irq-cfg1 smmuv3.irq-cfg2 smmuv3.priq-irq-cfg2
        case '*'
            return 1
    end
end
# -- end --

function __iommuctl_words
    set -l tokens (commandline -opc)
    set -l current (commandline -ct)
    while string match -qr '^\w+=' -- "$tokens[1]"
        set -e tokens[1]
    end
    set -l program (string replace -r '^~/' "$HOME/" -- $tokens[1])
    set -l verbs
    set -l takes
    set -l opts
    set -l path
    set -l state
    set -l rid
    set -l option
    set -l spec
    set -l used
    set -l literal
    set -l taken 1
    __iommuctl_command ''
    for word in $tokens[2..]
        if test -n "$option"
            __iommuctl_given $word
        else if test "$word" = -- -a -z "$literal"
            set literal yes
        else if string match -qr '^-.' -- $word; and test -z "$literal"
            set -l parts (string split -m 1 = -- $word)
            __iommuctl_option $parts[1]; or return
            if test -n "$option" -a (count $parts) -eq 2
                __iommuctl_given $parts[2]
            end
        else if test -n "$verbs"
            set -a path $word
            __iommuctl_command "$path"; or return
        else
            test "$takes[$taken]" = RID; and set rid $word
            set taken (math $taken + 1)
        end
    end

    set -l parts (string split -m 1 = -- "$current")
    if test -n "$option"
        __iommuctl_values "$spec" '' $current
    else if string match -q -- '--*=*' $current; and test -z "$literal"
        __iommuctl_option $parts[1]; or return
        __iommuctl_values "$spec" $parts[1]= $parts[2]
    else if string match -q -- '-*' $current; and test -z "$literal"
        __iommuctl_options
    else if test -n "$verbs"
        printf '%s\t%s\n' $verbs
    else if test $taken -le (count $takes)
        __iommuctl_values $takes[$taken] '' $current
    else if test -z "$literal"
        __iommuctl_options
    end
end

# What OPTION is: `option` and `spec` are set when a value follows, and it is not offered again.
function __iommuctl_option --no-scope-shadowing --argument-names __asked
    for __at in (seq 1 2 (count $opts))
        set -l __parts (string split -m 1 = -- $opts[$__at])
        contains -- $__asked (string split , -- (string trim -l -c '*' -- $__parts[1])); or continue
        set -a used $__parts[1]
        if test (count $__parts) -eq 2
            set option $__asked
            set spec $__parts[2]
        end
        return 0
    end
    return 1
end

# The value of the option before, where other words depend on it.
function __iommuctl_given --no-scope-shadowing --argument-names __value
    test "$option" = --state; and set state (string replace -r '^~/' "$HOME/" -- $__value)
    test "$spec" = RID; and set rid $__value
    set option
end

# The options that were not given, and those that may be given again.
function __iommuctl_options --no-scope-shadowing
    for __at in (seq 1 2 (count $opts))
        set -l __names (string split -m 1 = -- $opts[$__at])[1]
        if string match -q '\**' -- $__names; or not contains -- $__names $used
            for __each in (string split , -- (string trim -l -c '*' -- $__names))
                printf '%s\t%s\n' $__each $opts[(math $__at + 1)]
            end
        end
    end
end

# What SPEC stands for: words, and the metavars of what is known, of what is alive, and of files.
function __iommuctl_values --no-scope-shadowing --argument-names __spec __before __begun
    test -n "$__spec"; or return
    set -l __live
    for __each in (string split '|' -- $__spec)
        switch $__each
            case DOMAIN PGTABLE MEM RID PASID
                set -a __live $__each
            case FILE
                printf "$__before%s\n" (__fish_complete_path $__begun)
            case DIR
                printf "$__before%s\n" (__fish_complete_directories $__begun '')
            case '*'
                set -l __known (__iommuctl_known $__each; or echo $__each)
                printf "$__before%s\n" $__known
        end
    end
    # What the shell would still expand in --state is not expanded here, so that nobody's folder answers.
    if test -n "$__live"; and not string match -q '*$*' -- $state
        printf "$__before%s\n" ($program __complete (string join '|' -- $__live) "$state" "$rid" 2>/dev/null)
    end
end

complete -c iommuctl -f -a '(__iommuctl_words)'
